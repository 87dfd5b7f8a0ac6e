//! What every store promises, asked of each of them in the same words.
//!
//! The suite is one function so that a service is started once; a failure names the step.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use lifeboat::store::{Listed, Location, Store, StoreErrorKind, StoreOptions, create, open};

/// Bytes that look random and differ for every seed.
pub fn noise(seed: u64, size_bytes: usize) -> Bytes {
    let mut out = vec![0; size_bytes];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    Bytes::from(out)
}

pub fn listed(name: &str, size_bytes: u64) -> Listed {
    Listed { name: name.to_owned(), size_bytes }
}

/// Runs the whole suite at a location where nothing is yet.
pub async fn run(location: &Location, options: &StoreOptions) {
    let store = create(location, options).expect("create");
    absence(&*store).await;
    round_trip(&*store).await;
    ranges(&*store).await;
    listings(&store).await;
    same_name_again(&store).await;
    replaces(&*store).await;
    deletes(&*store).await;
    refused_names(&*store).await;
    large_object(&*store).await;
    seen_by_another(location, options, &*store).await;
}

async fn absence(store: &dyn Store) {
    for folder in ["", "data", "never/made"] {
        assert_eq!(store.list(folder).await.expect("list of nothing"), [], "{folder:?}");
    }
    for name in ["config", "data/00", "never/made/x"] {
        assert_eq!(
            store.get(name).await.expect_err("get of nothing").kind,
            StoreErrorKind::NotFound,
            "{name}"
        );
        let error = store.get_range(name, 0, 1).await.expect_err("range of nothing");
        assert_eq!(error.kind, StoreErrorKind::NotFound, "{name}");
        store.delete(name).await.expect("delete of nothing");
    }
}

async fn round_trip(store: &dyn Store) {
    for (name, size) in [("config", 100), ("data/0", 0), ("data/1", 1), ("runs/aa/0", 17), ("data/f", 70_001)]
    {
        let bytes = noise(size as u64, size);
        store.put(name, bytes.clone()).await.unwrap_or_else(|e| panic!("put {name}: {e}: {}", e.cause));
        assert_eq!(store.get(name).await.expect(name), bytes, "{name}");
    }
}

async fn ranges(store: &dyn Store) {
    let whole = noise(70_001, 70_001);
    for (offset, length) in [(0, 1), (0, 70_001), (70_000, 1), (1, 70_000), (12_345, 4096)] {
        let part = store.get_range("data/f", offset, length).await.expect("range");
        assert_eq!(part, whole.slice(offset as usize..(offset + length) as usize), "{offset}+{length}");
    }
    assert_eq!(store.get_range("data/f", 5, 0).await.expect("empty range"), Bytes::new());
    for (offset, length) in [(0, 70_002), (70_000, 2), (70_001, 1), (1 << 40, 1), (1 << 62, 1 << 62)] {
        let error = store.get_range("data/f", offset, length).await.expect_err("range past the end");
        assert_eq!(error.kind, StoreErrorKind::Truncated, "{offset}+{length}: {}", error.cause);
    }
    let error = store.get_range("data/0", 0, 1).await.expect_err("range of an empty object");
    assert_eq!(error.kind, StoreErrorKind::Truncated, "{}", error.cause);
}

async fn listings(store: &Arc<dyn Store>) {
    assert_eq!(store.list("").await.expect("list of the root"), [listed("config", 100)]);
    let data = [listed("data/0", 0), listed("data/1", 1), listed("data/f", 70_001)];
    assert_eq!(store.list("data").await.expect("list"), data);
    assert_eq!(store.list("runs").await.expect("a folder of folders"), []);
    assert_eq!(store.list("runs/aa").await.expect("list"), [listed("runs/aa/0", 17)]);

    // Written at once and in no order; shown complete and ascending.
    let names: Vec<String> = (0..40u64).map(|n| format!("index/{:02x}", n * 7919 % 251)).collect();
    let puts = names.iter().map(|name| {
        let (store, name) = (Arc::clone(store), name.clone());
        async move { store.put(&name, Bytes::from_static(b"entry")).await }
    });
    for done in join_all(puts).await {
        done.expect("concurrent put");
    }
    let mut expected: Vec<_> = names.iter().map(|name| listed(name, 5)).collect();
    expected.sort();
    assert_eq!(store.list("index").await.expect("list"), expected);
}

async fn same_name_again(store: &Arc<dyn Store>) {
    let bytes = noise(3, 50_000);
    let puts = (0..8).map(|_| {
        let (store, bytes) = (Arc::clone(store), bytes.clone());
        async move { store.put("data/same", bytes).await }
    });
    for done in join_all(puts).await {
        done.unwrap_or_else(|e| panic!("the same bytes at once: {e}: {}", e.cause));
    }
    store.put("data/same", bytes.clone()).await.expect("the same bytes again");
    // Other bytes may be refused or replace; they may not mix with the old ones.
    let other = noise(4, 30_000);
    let expected = match store.put("data/same", other.clone()).await {
        Ok(()) => other,
        Err(error) => {
            assert_eq!(error.kind, StoreErrorKind::Conflict, "{}", error.cause);
            bytes
        }
    };
    assert_eq!(store.get("data/same").await.expect("get"), expected);
}

/// Other bytes, more of them, and a name that is not taken.
async fn replaces(store: &dyn Store) {
    for (seed, size) in [(1, 300), (2, 70_001), (3, 5)] {
        let bytes = noise(seed, size);
        store
            .replace("parity/a", bytes.clone())
            .await
            .unwrap_or_else(|e| panic!("replace: {e}: {}", e.cause));
        assert_eq!(store.get("parity/a").await.expect("replaced"), bytes, "{size}");
    }
    assert_eq!(store.list("parity").await.expect("list"), [listed("parity/a", 5)]);
    store.delete("parity/a").await.expect("delete");
}

async fn deletes(store: &dyn Store) {
    store.delete("data/same").await.expect("delete");
    store.delete("data/same").await.expect("delete again");
    assert!(store.get("data/same").await.expect_err("deleted").is_not_found());
    let left: Vec<_> = store.list("data").await.expect("list").into_iter().map(|l| l.name).collect();
    assert_eq!(left, ["data/0", "data/1", "data/f"]);
    store.put("data/same", Bytes::from_static(b"new")).await.expect("put after delete");
    assert_eq!(&store.get("data/same").await.expect("get")[..], b"new");
    store.delete("data/same").await.expect("delete");
}

async fn refused_names(store: &dyn Store) {
    for name in
        ["", "/etc/passwd", "../x", "data/../../x", "data/", ".tmp-1", "data/.tmp-1", "DATA", "a b", "a\0b"]
    {
        let put = store.put(name, Bytes::new()).await.expect_err(name);
        let get = store.get(name).await.expect_err(name);
        let delete = store.delete(name).await.expect_err(name);
        assert_eq!([put.kind, get.kind, delete.kind], [StoreErrorKind::Config; 3], "{name:?}");
    }
    assert_eq!(store.list("..").await.expect_err("..").kind, StoreErrorKind::Config);
}

async fn large_object(store: &dyn Store) {
    let bytes = noise(9, 40 << 20);
    store.put("data/large", bytes.clone()).await.unwrap_or_else(|e| panic!("{e}: {}", e.cause));
    assert!(store.get("data/large").await.expect("get") == bytes);
    let part = store.get_range("data/large", 33_333_333, 5_000_000).await.expect("range");
    assert!(part == bytes.slice(33_333_333..38_333_333));
    assert_eq!(store.list("data").await.expect("list").last(), Some(&listed("data/large", 40 << 20)));
}

async fn seen_by_another(location: &Location, options: &StoreOptions, first: &dyn Store) {
    let second = open(location, options).expect("open");
    assert_eq!(second.location(), location.to_string());
    assert_eq!(second.list("index").await.expect("list"), first.list("index").await.expect("list"));
    second.put("data/second", Bytes::from_static(b"2")).await.expect("put");
    assert_eq!(&first.get("data/second").await.expect("get")[..], b"2");
}
