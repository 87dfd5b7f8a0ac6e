//! Level 0: small things without domain words that every other level may lean on.

pub mod byte_size;
pub mod cache_lost;
pub mod cancel;
pub mod causes;
pub mod clock;
pub mod http;
pub mod names;
pub mod order;
pub mod own_file;
pub mod pool;
pub mod process;
pub mod progress;
pub mod random;
pub mod replace;
pub mod secret;
pub mod socket;
pub mod url;
pub mod whole_file;
