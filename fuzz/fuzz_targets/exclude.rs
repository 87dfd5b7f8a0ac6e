//! Any text as exclude patterns over any path.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((at, rest)) = bytes.split_first() else { return };
    let (patterns, path) = rest.split_at(usize::from(*at).min(rest.len()));
    let files = vec![String::from_utf8_lossy(patterns).into_owned()];
    let options = lifeboat::source::files::exclude::ExcludeOptions { files, ..Default::default() };
    if let Ok(excludes) = lifeboat::source::files::exclude::Excludes::new(&options) {
        excludes.matches(path, path.len() % 2 == 0);
    }
});
