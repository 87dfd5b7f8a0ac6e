//! Storage that wants to hurt: it may refuse, lie and hand out rubbish, but not fill our memory.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;

use lifeboat::store::{Location, StoreOptions, create, open};

/// Answers every request with these headers, then with zeros for as long as anybody listens.
fn endless(headers: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\n{headers}\r\n").as_bytes());
            let zeros = vec![0; 1 << 20];
            while stream.write_all(&zeros).is_ok() {}
        }
    });
    port
}

#[tokio::test]
async fn an_object_that_never_ends_is_given_up() {
    let port = endless("Content-Length: 90000000000000\r\n");
    let location: Location = format!("webdav://127.0.0.1:{port}/x").parse().unwrap();
    let options = StoreOptions { max_retries: 0, ..StoreOptions::default() };
    let store = open(&location, &options).unwrap();
    for error in [store.get("config").await.unwrap_err(), store.list("packs").await.unwrap_err()] {
        let cause = error.cause.to_string();
        assert!(cause.contains("no object of a repository has more"), "{error}: {cause}");
    }
}

#[tokio::test]
async fn a_file_too_large_for_an_object_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let location = Location::local(folder.path());
    let store = create(&location, &StoreOptions::default()).unwrap();
    let file = File::create(folder.path().join("config")).unwrap();
    file.set_len(1 << 40).unwrap();
    let error = store.get("config").await.unwrap_err();
    let text = format!("{error}: {}", error.cause);
    assert!(text.contains("has 1099511627776 bytes"), "{text}");
}
