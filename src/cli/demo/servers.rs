//! The demo's servers: PostgreSQL and Redis of its own where their programs are installed, reached by nobody else.
//!
//! They are the sandboxes that drills restore into, filled with the same data everywhere. What they hold is asked by
//! their own clients' means, not by Lifeboat's.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::Failure;
use crate::drill::sandbox::{DockerGround, Ground, Sandbox, SandboxKind, provision};
use crate::source::postgres::{Address, server_tools};

/// PostgreSQL's versions that are looked for, the newest first.
const NEWEST: u32 = 20;
const OLDEST: u32 = 12;
pub const CUSTOMERS: u32 = 20_000;
pub const SESSIONS: u32 = 4_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Customers, what they were sent, and a role that owns both.
const FILL: &str = "
    CREATE TABLE customers (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, mail text NOT NULL UNIQUE,
        name text, since date NOT NULL);
    INSERT INTO customers (mail, name, since) SELECT 'customer-' || n || '@example.org',
        initcap(substr(md5(n::text), 1, 8)), date '2020-01-01' + n % 2000 FROM generate_series(1, 20000) n;
    CREATE TABLE letters (customer bigint REFERENCES customers, sent timestamptz, body text);
    INSERT INTO letters SELECT n % 20000 + 1, timestamptz '2026-01-01 00:00+00' + n * interval '1 minute',
        'Dear customer, ' || md5(n::text) FROM generate_series(1, 30000) n;
    CREATE INDEX letters_by_customer ON letters (customer);
    CREATE VIEW newest AS SELECT * FROM customers ORDER BY since DESC LIMIT 10;
    ALTER TABLE customers OWNER TO shop; ALTER TABLE letters OWNER TO shop; ALTER VIEW newest OWNER TO shop;";
/// Rows of both tables, and a number made of all their columns.
const QUESTION: &str = "SELECT count(*) || ' ' || sum(('x' || substr(md5(t), 1, 8))::bit(32)::bigint) FROM
    (SELECT c::text AS t FROM customers c UNION ALL SELECT l::text FROM letters l) AS all_rows";
/// Sessions and carts, as a script so that no round trips are made.
const FILL_REDIS: &str = "for i = 1, tonumber(ARGV[1]) do
    redis.call('SET', 'session:' .. i, redis.sha1hex(i), 'EX', 86400)
    if i % 8 == 0 then redis.call('HSET', 'cart:' .. i, 'lamp', i % 5, 'chair', i % 3) end
    end return redis.call('DBSIZE')";
/// A hash over every value.
const ASK_REDIS: &str = "local sum = '' for i = 1, tonumber(ARGV[1]) do
    sum = redis.sha1hex(sum .. redis.call('GET', 'session:' .. i))
    if i % 8 == 0 then sum = redis.sha1hex(sum .. redis.call('HGET', 'cart:' .. i, 'lamp')) end
    end return redis.call('DBSIZE') .. ' ' .. sum";

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Redis,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::Redis => "Redis",
        }
    }
}

/// A running server.
pub struct Server {
    pub kind: Kind,
    sandbox: Box<dyn Sandbox>,
    /// Where its client is.
    tools: PathBuf,
    major: u32,
    /// `PostgreSQL 15.9`
    pub version: String,
}

/// Starts what is installed; and says what is not, or does not start.
pub fn start(ground: &Ground) -> (Vec<Server>, Vec<String>) {
    let (mut servers, mut missing) = (Vec::new(), Vec::new());
    match (OLDEST..=NEWEST).rev().find_map(|major| Some((major, server_tools(major, &ground.path)?))) {
        None => missing.push("PostgreSQL".to_owned()),
        Some((major, tools)) => match Server::postgres(ground, major, tools) {
            Ok(server) => servers.push(server),
            Err(error) => missing.push(format!("PostgreSQL ({error})")),
        },
    }
    let is_there = |name: &str| ground.path.iter().any(|folder| folder.join(name).is_file());
    if is_there("redis-server") || is_there("valkey-server") {
        match Server::redis(ground) {
            Ok(server) => servers.push(server),
            Err(error) => missing.push(format!("Redis ({error})")),
        }
    } else {
        missing.push("Redis".to_owned());
    }
    (servers, missing)
}

impl Server {
    fn postgres(ground: &Ground, major: u32, tools: PathBuf) -> Result<Self, Failure> {
        let facts = json!({ "postgres": { "server_major": major, "databases": { "shop": {} } } });
        let sandbox = made(provision(SandboxKind::Postgres, ground, &facts))?;
        let mut server = Self { kind: Kind::Postgres, sandbox, tools, major, version: String::new() };
        let version = server.psql("postgres", "SHOW server_version")?;
        server.version = format!("PostgreSQL {}", version.split(' ').next().unwrap_or_default());
        Ok(server)
    }

    fn redis(ground: &Ground) -> Result<Self, Failure> {
        let sandbox = made(provision(SandboxKind::Redis, ground, &json!({})))?;
        let mut server =
            Self { kind: Kind::Redis, sandbox, tools: PathBuf::new(), major: 0, version: String::new() };
        let info = server.redis_says(&["INFO", "server"])?;
        let line = |key: &str| info.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
        server.version = match (line("valkey_version:"), line("redis_version:")) {
            (Some(version), _) => format!("Valkey {version}"),
            (None, version) => format!("Redis {}", version.unwrap_or_default()),
        };
        Ok(server)
    }

    /// The same server anew, empty.
    pub fn again(&self, ground: &Ground) -> Result<Self, Failure> {
        match self.kind {
            Kind::Postgres => Self::postgres(ground, self.major, self.tools.clone()),
            Kind::Redis => Self::redis(ground),
        }
    }

    /// Puts the demo's data there, and says what it is.
    pub fn fill(&self) -> Result<String, Failure> {
        match self.kind {
            Kind::Postgres => {
                self.psql("postgres", "CREATE ROLE shop LOGIN PASSWORD 'only-an-example'")?;
                self.psql("postgres", "CREATE DATABASE shop OWNER shop")?;
                self.psql("shop", FILL)?;
                Ok(format!("{}: 2 tables, a view, a role of its own", self.version))
            }
            Kind::Redis => {
                let keys = self.redis_says(&["EVAL", FILL_REDIS, "0", &SESSIONS.to_string()])?;
                Ok(format!("{}: {keys} keys, most of which expire tomorrow", self.version))
            }
        }
    }

    /// How much there is, and a sum over all of it.
    pub fn ask(&self) -> Result<String, Failure> {
        match self.kind {
            Kind::Postgres => self.psql("shop", QUESTION),
            Kind::Redis => self.redis_says(&["EVAL", ASK_REDIS, "0", &SESSIONS.to_string()]),
        }
    }

    /// Where Lifeboat finds it.
    pub fn address(&self) -> String {
        self.sandbox.address().unwrap_or_default()
    }

    /// Ends it and removes what it kept.
    pub fn destroy(self) -> Result<(), Failure> {
        self.sandbox.clean().map_err(|error| Failure::Wrong(error.to_string()))
    }

    fn psql(&self, database: &str, sql: &str) -> Result<String, Failure> {
        let address = Address::parse(&self.address()).map_err(|error| Failure::Wrong(error.to_string()))?;
        let mut psql = Command::new(self.tools.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h", &address.server.host]);
        psql.args(["-p", &address.server.port.to_string(), "-d", database, "-c", sql]).env_clear();
        let said = psql.current_dir("/").output()?;
        if !said.status.success() {
            let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
            return Err(Failure::Wrong(format!("the sample server: {why}")));
        }
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }

    /// Sends one command and returns the answer as text.
    fn redis_says(&self, words: &[&str]) -> Result<String, Failure> {
        let address = self.address();
        let (login, at) = address.trim_start_matches("redis://").rsplit_once('@').unwrap_or_default();
        let password = login.split_once(':').map_or("", |(_, password)| password);
        let stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream);
        say(&mut reader, &["AUTH", password])?;
        say(&mut reader, words)
    }
}

fn made(
    sandbox: Result<Box<dyn Sandbox>, crate::drill::sandbox::SandboxError>,
) -> Result<Box<dyn Sandbox>, Failure> {
    sandbox.map_err(|error| Failure::Wrong(error.to_string().lines().next().unwrap_or_default().to_owned()))
}

/// One command of Redis' protocol, and its answer.
fn say(reader: &mut BufReader<TcpStream>, words: &[&str]) -> Result<String, Failure> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    reader.get_mut().write_all(command.as_bytes())?;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (sign, rest) = line.trim_end().split_at_checked(1).unwrap_or_default();
    match sign {
        "+" | ":" => Ok(rest.to_owned()),
        "$" => {
            let length: usize = rest.parse().unwrap_or_default();
            let mut bytes = vec![0; length.min(1 << 20) + 2];
            reader.read_exact(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        }
        _ => Err(Failure::Wrong(format!("the sample server: {rest}"))),
    }
}

/// What sandboxes for the demo are made with.
pub fn ground(scratch: &Path, context: &super::Context) -> Ground {
    Ground {
        scratch: scratch.to_owned(),
        path: context.settings.services.path.clone(),
        withheld: crate::config::SECRET_VARIABLES,
        cancel: context.cancel.clone(),
        variables: Vec::new(),
        docker: DockerGround::default(),
        lent: None,
    }
}
