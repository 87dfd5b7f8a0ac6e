//! Level 10: the face of the tool. Arguments in; text or JSON, and an exit code, out.
//!
//! Only this level knows a terminal: stdout carries data, stderr progress and messages.

pub mod exit;
pub mod progress;
