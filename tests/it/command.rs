//! Commands and pipes as sources: what may become a snapshot, and what is left running afterwards.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use lifeboat::base::cancel::Cancel;
use lifeboat::base::process::ProcessOptions;
use lifeboat::format::entry::Timestamp;
use lifeboat::source::command::{CommandOptions, CommandSource, Finished, StreamError};
use lifeboat::source::stdin::StreamSource;

const NOW: Timestamp = Timestamp { seconds: 5, nanoseconds: 6 };

fn start(script: &str, options: CommandOptions, cancel: &Cancel) -> CommandSource {
    let argv = ["sh", "-c", script].map(OsString::from);
    CommandSource::start(&argv, options, NOW, cancel).unwrap()
}

fn run(script: &str, options: CommandOptions) -> (Vec<u8>, Result<Finished, StreamError>) {
    let mut source = start(script, options, &Cancel::new());
    assert_eq!(source.consistent_at(), NOW);
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes).unwrap();
    (bytes, source.finish())
}

/// Whether a process goes away: the system takes its time after the signal.
fn goes(pid: &str) -> bool {
    (0..1000).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !runs(pid)
    })
}

/// Whether a process still runs; one that waits to be reaped does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

#[test]
fn a_stream_counts_only_with_status_zero_and_bytes() {
    let options = CommandOptions::default();
    let (bytes, finished) = run("printf hello; echo note >&2", options);
    assert_eq!(bytes, b"hello");
    assert_eq!(finished.unwrap(), Finished { size_bytes: 5, stderr: "note\n".into() });
    let failed = run("printf half; echo disk on fire >&2; exit 3", options).1.unwrap_err().to_string();
    assert!(failed.contains("exit status 3") && failed.contains("disk on fire"), "{failed}");
    let killed = run("printf half; kill -9 $$", options).1.unwrap_err().to_string();
    assert!(killed.contains("SIGKILL"), "{killed}");
    assert!(matches!(run("true", options).1, Err(StreamError::Empty(_))));
    assert_eq!(run("true", CommandOptions { allow_empty: true, ..options }).1.unwrap().size_bytes, 0);
}

#[test]
fn an_argument_is_never_named_in_an_error() {
    let error = run("exit 1; # secret-word", CommandOptions::default()).1.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret-word"));
}

#[test]
fn a_command_that_is_not_there_or_not_read_is_an_error() {
    let cancel = Cancel::new();
    let argv = [OsString::from("/no/such/program")];
    let error = CommandSource::start(&argv, CommandOptions::default(), NOW, &cancel).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"));
    assert!(matches!(
        CommandSource::start(&[], CommandOptions::default(), NOW, &cancel),
        Err(StreamError::NoCommand)
    ));
    let mut source = start("yes", CommandOptions::default(), &cancel);
    source.read_exact(&mut [0; 10]).unwrap();
    assert!(matches!(source.finish(), Err(StreamError::Unfinished(_))));
}

#[test]
fn much_on_stderr_blocks_nothing_and_its_end_is_kept() {
    let script = "i=0; while [ $i -lt 20000 ]; do echo complaint number $i >&2; i=$((i+1)); done; echo out";
    let (bytes, finished) = run(script, CommandOptions::default());
    let stderr = finished.unwrap().stderr;
    assert_eq!(bytes, b"out\n");
    assert!(stderr.len() <= 64 * 1024 && stderr.ends_with("number 19999\n"));
}

#[test]
fn a_command_that_stalls_is_ended_with_its_children() {
    let process = ProcessOptions {
        no_progress: Some(Duration::from_millis(300)),
        grace: Duration::from_millis(200),
        withheld: &[],
    };
    let options = CommandOptions { process, ..CommandOptions::default() };
    let script = "trap '' TERM; sleep 1000 & echo $!; echo waiting >&2; wait; sleep 1000";
    let mut source = start(script, options, &Cancel::new());
    let mut text = String::new();
    let error = source.read_to_string(&mut text).unwrap_err();
    assert!(error.to_string().contains("gave nothing") && error.to_string().contains("waiting"), "{error}");
    drop(source);
    assert!(text.trim().parse::<u32>().is_ok() && goes(&text), "{text}");
    // Closing the stream and staying is a stall too.
    let mut source = start("echo x; exec >&-; exec sleep 1000", options, &Cancel::new());
    source.read_to_end(&mut Vec::new()).unwrap();
    assert!(source.finish().unwrap_err().to_string().contains("gave nothing"));
}

#[test]
fn cancelling_or_dropping_ends_the_whole_group() {
    for cancelled in [true, false] {
        let cancel = Cancel::new();
        let mut source = start("sleep 1000 & printf '%9d' $!; wait", CommandOptions::default(), &cancel);
        let mut pid = [0; 9];
        source.read_exact(&mut pid).unwrap();
        let pid = String::from_utf8_lossy(&pid).into_owned();
        assert!(runs(&pid));
        if cancelled {
            cancel.cancel();
            assert!(source.read(&mut [0; 1]).unwrap_err().to_string().contains("interrupted"));
        } else {
            drop(source);
        }
        assert!(goes(&pid));
    }
}

#[test]
fn a_pipe_counts_only_to_its_end_and_with_bytes() {
    let mut source = StreamSource::new(&b"abc"[..], false, NOW);
    source.read_exact(&mut [0; 3]).unwrap();
    assert!(matches!(source.finish(), Err(StreamError::Unfinished(_))));
    let mut source = StreamSource::new(&b"abc"[..], false, NOW);
    source.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(source.finish().unwrap().size_bytes, 3);
    for allow_empty in [true, false] {
        let mut source = StreamSource::new(&b""[..], allow_empty, NOW);
        source.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(source.finish().is_ok(), allow_empty);
    }
}
