//! Redis and Valkey: captured while writers are at work, given back into live servers and stopped ones' folders.

mod capture;
mod restore;

use super::conformance::{self, Subject};
use crate::services::redis::{self as servers, Redis};

/// One value of every type and, as far as a script can choose it, every encoding.
pub const EVERY_TYPE: &str = r#"
    redis.replicate_commands()
    for i = 1, 3000 do redis.call('SET', 'key:' .. i, 'value ' .. i) end
    redis.call('SET', 'number', 12345)
    redis.call('SET', 'long', string.rep('lifeboat ', 5000))
    redis.call('SET', 'binary \0\r\n\255 key', 'binary \0\r\n\255 value')
    redis.call('SET', '1234567', 'a key that is a number')
    redis.call('SET', string.rep('a key that packs well ', 40), 'x')
    redis.call('SETBIT', 'bits', 70000, 1)
    redis.call('PFADD', 'hll', 'a', 'b', 'c')
    redis.call('SET', 'expires', 'later', 'EX', 100000)
    redis.call('PEXPIREAT', 'key:7', 4102444800123)
    for i = 1, 5 do
        redis.call('RPUSH', 'list', i, 'x' .. i)
        redis.call('SADD', 'ints', i * 1000)
        redis.call('SADD', 'set', 'm' .. i)
        redis.call('ZADD', 'zset', i / 3, 'm' .. i)
        redis.call('HSET', 'hash', 'f' .. i, i)
    end
    redis.call('ZADD', 'zset', '-inf', 'low', '+inf', 'high')
    for i = 1, 2000 do
        redis.call('RPUSH', 'big list', string.rep('e', 100) .. i)
        redis.call('SADD', 'big ints', i * 100000000000)
        redis.call('SADD', 'big set', 'member ' .. i)
        redis.call('ZADD', 'big zset', i * 1.5, 'member ' .. i)
        redis.call('HSET', 'big hash', 'field ' .. i, string.rep('v', i % 200))
        redis.call('XADD', 'stream', i .. '-1', 'field', i, 'other', 'x')
    end
    redis.call('XDEL', 'stream', '5-1')
    redis.call('XGROUP', 'CREATE', 'stream', 'group', '0')
    redis.call('XGROUP', 'CREATE', 'stream', 'idle', '$')
    redis.call('XREADGROUP', 'GROUP', 'group', 'bob', 'COUNT', 10, 'STREAMS', 'stream', '>')
    redis.call('XREADGROUP', 'GROUP', 'group', 'eve', 'COUNT', 3, 'STREAMS', 'stream', '>')
    redis.call('XACK', 'stream', 'group', '1-1')
    redis.call('SELECT', 3)
    redis.call('SET', 'in another', 'database')
    redis.call('GEOADD', 'places', 13.361389, 38.115556, 'Palermo')
    redis.call('SELECT', 15)
    redis.call('HSET', 'last', 'one', 1)
    return 'filled'
"#;

pub const LIBRARY: &str = "#!lua name=harbour\nredis.register_function('moor', function() return 1 end)";

pub fn fill(redis: &Redis) {
    assert_eq!(redis.script(EVERY_TYPE), "filled");
    assert_eq!(redis.ask(&["FUNCTION", "LOAD", "REPLACE", LIBRARY]), "harbour");
}

struct Pair {
    source: Redis,
    targets: Vec<Redis>,
}

impl Pair {
    fn new() -> Self {
        Self { source: servers::start(&[]), targets: Vec::new() }
    }
}

impl Subject for Pair {
    fn address(&self) -> String {
        self.source.address()
    }
    fn vacant(&mut self) -> String {
        self.targets.push(servers::start(&[]));
        self.targets.last().unwrap().address()
    }
    fn fill(&mut self) {
        fill(&self.source);
    }
    fn change(&mut self) {
        self.source.ask(&["DEL", "key:9"]);
        self.source.ask(&["SET", "new", "key"]);
    }
    fn content(&self, address: &str) -> String {
        let mut all = self.targets.iter().chain([&self.source]);
        all.find(|redis| redis.address() == address).unwrap().content()
    }
    fn replacing(&self) -> &'static [&'static str] {
        &["--force", "--flush-first"]
    }
    fn nowhere(&self) -> String {
        format!("redis://127.0.0.1:{}", crate::services::free_port())
    }
}

#[test]
fn a_redis_server_is_captured_and_given_back() {
    conformance::captured_and_given_back(&mut Pair::new());
}

#[test]
fn a_redis_server_that_is_not_there_gives_no_snapshot() {
    conformance::nothing_there(&Pair::new());
}

#[test]
fn damage_in_the_repository_leaves_a_redis_target_as_it_was() {
    conformance::damage_reaches_no_target(&mut Pair::new());
}

/// What happens to a server's answer on its way.
#[derive(Clone, Copy)]
pub enum Proxied {
    /// One bit changes.
    Flipped,
    /// It ends.
    Cut,
}

/// A port that leads to a server; the byte at `at` of each long answer meets its fate.
pub fn proxy(server: u16, fate: Proxied, at: usize) -> u16 {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let upstream = TcpStream::connect(("127.0.0.1", server)).unwrap();
            let (mut asks, mut asked) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut asks, &mut asked));
            let (mut from, mut to) = (upstream, client);
            std::thread::spawn(move || {
                let (mut passed, mut buffer) = (0, [0; 4096]);
                while let Ok(length @ 1..) = from.read(&mut buffer) {
                    let place = (passed..passed + length).contains(&at).then(|| at - passed);
                    passed += length;
                    match (place, fate) {
                        (Some(place), Proxied::Flipped) => buffer[place] ^= 1,
                        (Some(_), Proxied::Cut) => break,
                        (None, _) => {}
                    }
                    if to.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
    port
}
