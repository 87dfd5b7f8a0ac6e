//! Shows how far a verb has come: a bar with rate and time left on a terminal, a line per interval elsewhere.
//!
//! Everything goes to stderr, so stdout stays data. A thread looks at the counters; workers never wait for it.
//! File names are hostile: control characters never reach the terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::byte_size;
use crate::base::progress::{Counters, Reading};

/// Between two lines off a terminal.
pub const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// Between two looks at the counters for a bar: often enough to seem alive, too seldom to cost anything.
const BAR_INTERVAL: Duration = Duration::from_millis(100);
/// Characters of a file name shown beside a bar.
const ITEM_CHARS: usize = 40;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Quiet,
    /// One line per interval.
    Lines,
    Bar {
        colour: bool,
    },
}

impl Mode {
    /// A bar where stderr is a terminal that can move its cursor, else lines. `NO_COLOR` takes the colour only.
    pub fn detect(quiet: bool) -> Self {
        // Any value but the empty one counts: https://no-color.org
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_none_or(|term| term == "dumb");
        match (quiet, std::io::stderr().is_terminal() && !is_dumb) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bar { colour: set("NO_COLOR").is_none() },
            (false, false) => Self::Lines,
        }
    }
}

/// Shows counters until it is dropped; then the bar is gone and stderr is free for messages.
pub struct Display {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Display {
    /// Starts showing. When no thread can be had, nothing is shown; progress is never a reason to fail.
    pub fn start(mode: Mode, counters: Arc<Counters>) -> Self {
        let mut watcher: Box<dyn Watcher + Send> = match mode {
            Mode::Quiet => return Self { thread: None },
            Mode::Lines => Box::new(Lines),
            Mode::Bar { colour } => Box::new(Bar::new(colour)),
        };
        let (stop, stopped) = channel::<()>();
        let look = move || {
            let mut pace = Pace::new(Instant::now());
            while stopped.recv_timeout(watcher.interval()) == Err(RecvTimeoutError::Timeout) {
                let reading = counters.read();
                let rates = pace.see(&reading, Instant::now());
                watcher.show(&reading, rates);
            }
            watcher.finish();
        };
        let thread = std::thread::Builder::new().name("progress".into()).spawn(look);
        Self { thread: thread.ok().map(|thread| (stop, thread)) }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            drop(stop);
            // A display that panicked has nothing more to say, and its verb goes on.
            let _ = thread.join();
        }
    }
}

trait Watcher {
    fn interval(&self) -> Duration;
    fn show(&mut self, reading: &Reading, rates: Rates);
    fn finish(&mut self);
}

/// Turns counters into speeds.
struct Pace {
    phase_number: u64,
    phase_began: Instant,
    last_seen: Instant,
    last_bytes: u64,
    recent: f64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Rates {
    /// Over the last seconds, for people to watch.
    bytes_per_second: f64,
    /// From the average of the whole phase, which jumps less. None when unknown.
    left: Option<Duration>,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { phase_number: 0, phase_began: now, last_seen: now, last_bytes: 0, recent: 0.0 }
    }

    fn see(&mut self, reading: &Reading, now: Instant) -> Rates {
        if reading.phase_number != self.phase_number {
            let phase_number = reading.phase_number;
            // The phase began at some time since the last look; the earlier bound errs towards slow.
            *self = Self { phase_number, phase_began: self.last_seen, ..Self::new(self.last_seen) };
        }
        // How long the past counts for, in seconds.
        const MEMORY: f64 = 3.0;
        let step = now.duration_since(self.last_seen).as_secs_f64();
        if step > 0.0 {
            let rate = reading.done_bytes.saturating_sub(self.last_bytes) as f64 / step;
            let weight = if self.last_bytes == 0 { 1.0 } else { 1.0 - (-step / MEMORY).exp() };
            self.recent += (rate - self.recent) * weight;
            (self.last_seen, self.last_bytes) = (now, reading.done_bytes);
        }
        let spent = now.duration_since(self.phase_began).as_secs_f64();
        let (total, done) = match reading.total_bytes {
            0 => (reading.total_files, reading.done_files),
            total => (total, reading.done_bytes),
        };
        let left = (done > 0 && total > done)
            .then(|| Duration::try_from_secs_f64(spent * (total - done) as f64 / done as f64).ok())
            .flatten();
        Rates { bytes_per_second: self.recent, left }
    }
}

/// `storing 42 %, 1.2 GiB of 2.9 GiB, 12 of 80 files, 120.0 MiB/s, 00:14 left`
fn line(reading: &Reading, rates: Rates) -> String {
    let mut line = reading.phase.to_owned();
    let Reading { total_bytes, done_bytes, total_files, done_files, .. } = *reading;
    let (total, done) = if total_bytes > 0 { (total_bytes, done_bytes) } else { (total_files, done_files) };
    if total > 0 {
        // Rounded down, and never 100 before the end.
        let percent = u128::from(done.min(total)) * 100 / u128::from(total);
        let _ = write!(line, " {percent} %");
    }
    if done_bytes > 0 || total_bytes > 0 {
        let _ = write!(line, ", {}", byte_size::human(done_bytes));
        if total_bytes > 0 {
            let _ = write!(line, " of {}", byte_size::human(total_bytes));
        }
    }
    if done_files > 0 || total_files > 0 {
        let _ = write!(line, ", {done_files}");
        if total_files > 0 {
            let _ = write!(line, " of {total_files}");
        }
        line.push_str(" files");
    }
    if done_bytes > 0 {
        let _ = write!(line, ", {}/s", byte_size::human(rates.bytes_per_second as u64));
    }
    if let Some(left) = rates.left {
        let _ = write!(line, ", {} left", clock_face(left));
    }
    line
}

/// `02:05`, `1:02:05`.
fn clock_face(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

/// The end of a name, which tells more than its beginning; what a terminal could obey or reorder is replaced.
fn shown_item(item: &str) -> String {
    let clean = |c: char| if crate::base::names::steers(c) { '?' } else { c };
    let count = item.chars().count();
    if count <= ITEM_CHARS {
        return item.chars().map(clean).collect();
    }
    std::iter::once('…').chain(item.chars().skip(count + 1 - ITEM_CHARS).map(clean)).collect()
}

struct Lines;

impl Watcher for Lines {
    fn interval(&self) -> Duration {
        LINE_INTERVAL
    }
    fn show(&mut self, reading: &Reading, rates: Rates) {
        if !reading.phase.is_empty() {
            // A closed stderr is no reason to stop the work.
            let _ = writeln!(std::io::stderr(), "{}", line(reading, rates));
        }
    }
    fn finish(&mut self) {}
}

struct Bar {
    bar: ProgressBar,
    colour: bool,
    has_total: Option<bool>,
}

impl Bar {
    fn new(colour: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        Self { bar, colour, has_total: None }
    }

    fn style(&self, has_total: bool) -> ProgressStyle {
        let template = match (has_total, self.colour) {
            (true, true) => "[{bar:24.cyan/blue}] {prefix}\n{msg:.dim}",
            (true, false) => "[{bar:24}] {prefix}\n{msg}",
            (false, true) => "{spinner:.cyan} {prefix}\n{msg:.dim}",
            (false, false) => "{spinner} {prefix}\n{msg}",
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        style.progress_chars("=> ")
    }
}

impl Watcher for Bar {
    fn interval(&self) -> Duration {
        BAR_INTERVAL
    }

    fn show(&mut self, reading: &Reading, rates: Rates) {
        if reading.phase.is_empty() {
            return;
        }
        let (total, done) = match reading.total_bytes {
            0 => (reading.total_files, reading.done_files),
            total => (total, reading.done_bytes),
        };
        if self.has_total != Some(total > 0) {
            self.bar.set_style(self.style(total > 0));
            self.has_total = Some(total > 0);
        }
        if total > 0 {
            self.bar.set_length(total);
            self.bar.set_position(done.min(total));
        }
        self.bar.set_prefix(line(reading, rates));
        self.bar.set_message(shown_item(&reading.item));
        self.bar.tick();
    }

    fn finish(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_nothing_else() {
        let known = Reading {
            phase: "storing",
            total_bytes: 3 << 30,
            done_bytes: 1 << 30,
            total_files: 80,
            done_files: 12,
            ..Reading::default()
        };
        let rates = Rates { bytes_per_second: 120e6, left: Some(Duration::from_secs(3725)) };
        let text = line(&known, rates);
        assert_eq!(text, "storing 33 %, 1.0 GiB of 3.0 GiB, 12 of 80 files, 114.4 MiB/s, 1:02:05 left");
        let stream = Reading { total_bytes: 0, total_files: 0, done_files: 0, ..known };
        assert_eq!(line(&stream, Rates { left: None, ..rates }), "storing, 1.0 GiB, 114.4 MiB/s");
        let listing = Reading { phase: "listing", done_files: 7, ..Reading::default() };
        assert_eq!(line(&listing, Rates { bytes_per_second: 0.0, left: None }), "listing, 7 files");
    }

    #[test]
    fn the_time_left_follows_the_average_and_starts_again_with_a_phase() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(start);
        let mut reading =
            Reading { phase_number: 1, total_bytes: 400, done_bytes: 100, ..Reading::default() };
        let rates = pace.see(&reading, after(10));
        assert_eq!(rates, Rates { bytes_per_second: 10.0, left: Some(Duration::from_secs(30)) });
        reading.done_bytes = 400;
        assert_eq!(pace.see(&reading, after(20)).left, None);
        reading = Reading { phase_number: 2, total_files: 10, done_files: 5, ..Reading::default() };
        let rates = pace.see(&reading, after(25));
        assert_eq!(rates, Rates { bytes_per_second: 0.0, left: Some(Duration::from_secs(5)) });
        // Looking twice at one instant divides by nothing.
        assert_eq!(pace.see(&reading, after(25)), rates);
    }

    #[test]
    fn a_hostile_name_cannot_steer_the_terminal() {
        assert_eq!(shown_item("a\u{1b}[2Jb\n\u{202e}c"), "a?[2Jb??c");
        let long = "é".repeat(100);
        assert_eq!(shown_item(&long).chars().count(), ITEM_CHARS);
        assert!(shown_item(&long).starts_with('…'));
    }

    #[test]
    fn a_display_ends_at_once_when_dropped() {
        let counters = Arc::new(Counters::new());
        for mode in [Mode::Quiet, Mode::Lines, Mode::Bar { colour: false }] {
            drop(Display::start(mode, Arc::clone(&counters)));
        }
        assert_eq!(Arc::strong_count(&counters), 1, "the thread has gone");
    }
}
