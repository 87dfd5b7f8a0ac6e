//! The demo's stack: what a small service really keeps. Made from a fixed seed, so that everybody sees the same.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::Failure;
use crate::base::random::{Random, SeededRandom};

/// Rows on the first day.
pub const ORDERS: u32 = 20_000;
/// Rows added on the second.
pub const NEW_ORDERS: u32 = 250;
/// Existing rows that change on the second day, spread over the table.
pub const CHANGED_ORDERS: u32 = 40;
/// Files in `uploads/`.
const UPLOADS: u64 = 24;
pub const DATABASE: &str = "data/orders.db";

const COMPOSE: &str = "\
services:
  web:
    image: registry.example/shop/web:4.2.1
    ports: [\"443:8443\"]
    volumes:
      - ./config:/etc/shop:ro
      - ./certs:/etc/shop/certs:ro
      - ./uploads:/srv/uploads
      - ./data:/var/lib/shop
    restart: unless-stopped
  worker:
    image: registry.example/shop/worker:4.2.1
    command: [\"shop-worker\", \"--queue\", \"orders\"]
    volumes:
      - ./data:/var/lib/shop
    depends_on: [web]
";
const SHOP: &str = "\
[server]
listen = \"0.0.0.0:8443\"
workers = 4

[orders]
database = \"/var/lib/shop/orders.db\"
retention_days = 3650

[mail]
host = \"smtp.example\"
from = \"shop@example.org\"
";
const PROXY: &str = "server {\n    listen 443 ssl;\n    location / { proxy_pass http://web:8443; }\n}\n";
const SCRIPT: &str = "#!/bin/sh\n# Called nightly by cron.\nset -eu\nexec shop-admin vacuum\n";

/// Makes the stack in `folder`.
pub fn create(folder: &Path) -> Result<(), Failure> {
    let random = SeededRandom::new(1);
    for name in ["config", "certs", "data", "uploads", "bin", "log/archive"] {
        fs::create_dir_all(folder.join(name))?;
    }
    let write = |name: &str, content: &[u8], mode: u32| write(&folder.join(name), content, mode);
    write("compose.yaml", COMPOSE.as_bytes(), 0o644)?;
    write("config/shop.toml", SHOP.as_bytes(), 0o640)?;
    write("config/proxy.conf", PROXY.as_bytes(), 0o644)?;
    write(".env", b"SHOP_TOKEN=only-an-example\n", 0o600)?;
    write("bin/nightly", SCRIPT.as_bytes(), 0o755)?;
    write("certs/shop.crt", pem("CERTIFICATE", 900, &random).as_bytes(), 0o644)?;
    write("certs/shop.key", pem("PRIVATE KEY", 1200, &random).as_bytes(), 0o600)?;
    write("log/web.log", log(1, 4000).as_bytes(), 0o644)?;
    for number in 1..=UPLOADS {
        // As incompressible as the pictures they stand for.
        let mut bytes = vec![0; 30_000 + 9_000 * number as usize];
        random.fill(&mut bytes);
        write(&format!("uploads/picture-{number:02}.jpg"), &bytes, 0o644)?;
    }
    // Somebody uploaded a picture twice.
    fs::copy(folder.join("uploads/picture-07.jpg"), folder.join("uploads/picture-07 (copy).jpg"))?;
    symlink("picture-24.jpg", folder.join("uploads/latest.jpg"))?;
    orders(&folder.join(DATABASE), |database| {
        database.execute_batch(
            "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, item TEXT NOT NULL,
                 amount_cents INTEGER NOT NULL, note TEXT);
             CREATE INDEX orders_by_customer ON orders (customer);",
        )?;
        add_orders(database, ORDERS)
    })?;
    age(folder)
}

/// A day of business.
pub fn change(folder: &Path) -> Result<(), Failure> {
    orders(&folder.join(DATABASE), |database| {
        add_orders(database, NEW_ORDERS)?;
        let step = ORDERS / CHANGED_ORDERS;
        database
            .execute("UPDATE orders SET note = 'refunded' WHERE id % ?1 = 0 AND id <= ?2", [step, ORDERS])?;
        Ok(())
    })?;
    let edited = SHOP.replace("workers = 4", "workers = 8");
    write(&folder.join("config/shop.toml"), edited.as_bytes(), 0o640)?;
    let mut log_file = fs::File::options().append(true).open(folder.join("log/web.log"))?;
    log_file.write_all(log(2, 300).as_bytes())?;
    Ok(())
}

/// What a customer would ask about: how many orders there are, and what they are worth; and that SQLite itself
/// finds the file sound.
pub fn ask_database(folder: &Path) -> Result<(u64, u64), Failure> {
    let database = Connection::open(folder.join(DATABASE))?;
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(Failure::Wrong(format!("SQLite finds the database broken: {sound}")));
    }
    let answer = database.query_row("SELECT count(*), sum(amount_cents) FROM orders", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    })?;
    Ok((answer.0.unsigned_abs(), answer.1.unsigned_abs()))
}

fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Failure> {
    fs::write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn orders(
    path: &Path,
    work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<(), rusqlite::Error>,
) -> Result<(), Failure> {
    let mut database = Connection::open(path)?;
    let transaction = database.transaction()?;
    work(&transaction)?;
    transaction.commit()?;
    Ok(())
}

fn add_orders(database: &rusqlite::Transaction<'_>, count: u32) -> Result<(), rusqlite::Error> {
    let first: u32 =
        database.query_row("SELECT coalesce(max(id), 0) + 1 FROM orders", [], |row| row.get(0))?;
    let mut insert = database
        .prepare("INSERT INTO orders (id, customer, item, amount_cents, note) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    for id in first..first + count {
        // Any fixed scatter does; these are not secrets.
        let scatter = id.wrapping_mul(2_654_435_761);
        let customer = format!("customer-{:05}@example.org", scatter % 7919);
        let item = ["lamp", "chair", "table", "shelf", "mirror"][(scatter >> 8) as usize % 5];
        let note = format!("placed by web-{}, reference {scatter:08x}", scatter % 3);
        insert.execute((id, customer, item, 500 + scatter % 20_000, note))?;
    }
    Ok(())
}

/// Looks like what a certificate authority hands out, and is none.
fn pem(label: &str, length: usize, random: &dyn Random) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    let letters: Vec<char> = bytes.iter().map(|byte| ALPHABET[usize::from(byte & 63)] as char).collect();
    let lines: Vec<String> = letters.chunks(64).map(|line| line.iter().collect()).collect();
    format!("-----BEGIN {label}-----\nMII{}\n-----END {label}-----\n", lines.join("\n"))
}

fn log(day: u32, lines: u32) -> String {
    let line = |at: u32| {
        let second = at * 86_400 / lines;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!(
            "2026-11-{:02}T{hour:02}:{minute:02}:{second:02}Z GET /orders/{} 200\n",
            19 + day,
            at * 37 % ORDERS
        )
    };
    (0..lines).map(line).collect()
}

/// Files of a running service are of different ages; a restore keeps them.
fn age(folder: &Path) -> Result<(), Failure> {
    let month = Duration::from_secs(30 * 86_400);
    let then = SystemTime::now().checked_sub(month).unwrap_or(SystemTime::UNIX_EPOCH);
    for name in ["compose.yaml", "certs/shop.crt", "certs/shop.key", "bin/nightly"] {
        fs::File::open(folder.join(name))?.set_modified(then)?;
    }
    Ok(())
}
