//! Servers in containers that publish no port, found by project and service.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{machine, unique};
use crate::services::dockerd::{Containers, Engine, engine};
use crate::services::program;

/// A root file system with a program and the libraries it needs.
fn root_of(folder: &Path, programs: &[PathBuf]) {
    for program in programs {
        let copy = |from: &Path| {
            let to = folder.join(from.strip_prefix("/").unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(from, to).unwrap();
        };
        copy(program);
        let listed = Command::new("ldd").arg(program).output().unwrap();
        for word in String::from_utf8(listed.stdout).unwrap().split_whitespace() {
            if word.starts_with('/') {
                copy(Path::new(word));
            }
        }
    }
    for name in ["tmp", "data"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
}

fn redis_image(engine: &Engine) -> (&'static str, String) {
    static MADE: std::sync::Once = std::sync::Once::new();
    // By that name: the file is one, and does what it is called.
    let server = program("redis-server");
    MADE.call_once(|| {
        let folder = tempfile::tempdir().unwrap();
        let busybox = program("busybox").canonicalize().unwrap();
        root_of(folder.path(), &[server.clone(), program("redis-cli"), busybox.clone()]);
        std::fs::create_dir_all(folder.path().join("bin")).unwrap();
        for name in ["sh", "cat", "nc"] {
            std::os::unix::fs::symlink(&busybox, folder.path().join("bin").join(name)).unwrap();
        }
        engine.import("lifeboat-redis", folder.path());
    });
    ("lifeboat-redis", server.display().to_string())
}

#[test]
fn a_redis_service_without_a_port_is_backed_up_and_restored() {
    let (engine, machine, project) = (engine(), machine(), unique("cache"));
    let (image, server) = redis_image(engine);
    let network = format!("{project}_inner");
    engine.docker(&["network", "create", &network]);
    let containers = Containers(project.clone());
    let label = format!("com.docker.compose.project={project}");
    for (service, network) in [("old", network.as_str()), ("new", &network), ("inner", "none")] {
        let (name, label_service) =
            (format!("{project}-{service}-1"), format!("com.docker.compose.service={service}"));
        engine.docker(&[
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            network,
            "--label",
            &label,
            "--label",
            &label_service,
            image,
            &server,
            "--requirepass",
            "s3cret",
            "--save",
            "",
            "--dir",
            "/data",
            "--repl-diskless-sync-delay",
            "0",
        ]);
        engine.until("Redis answers", |engine| {
            let ping = engine
                .command(&["exec", &name, "/usr/bin/redis-cli", "-a", "s3cret", "ping"])
                .output()
                .unwrap();
            String::from_utf8_lossy(&ping.stdout).contains("PONG")
        });
    }
    let cli = |service: &str, words: &[&str]| {
        let name = format!("{project}-{service}-1");
        let mut arguments = vec!["exec", &name, "/usr/bin/redis-cli", "-a", "s3cret", "--no-auth-warning"];
        arguments.extend(words);
        engine.docker(&arguments)
    };
    for number in 0..10 {
        cli("old", &["set", &format!("key-{number}"), "value"]);
    }
    let said = machine.run(&["backup", &format!("redis://old@{project}")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]).stdout;
    assert!(listed.contains(&format!("redis://old@{project}")) && !listed.contains("s3cret"), "{listed}");
    let said = machine.run(&["restore", "latest", "--to", &format!("redis://new@{project}")]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(cli("new", &["dbsize"]), "10");
    // Without any network: through the container, both ways.
    let inner = format!("redis://inner@{project}");
    let said = machine.run(&["restore", "latest", "--to", &inner]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(cli("inner", &["dbsize"]), "10");
    cli("inner", &["set", "more", "value"]);
    let said = machine.run(&["backup", &inner]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let new = format!("redis://new@{project}");
    let said =
        machine.run(&["restore", &format!("{inner}@latest"), "--to", &new, "--force", "--flush-first"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(cli("new", &["dbsize"]), "11");
    let said = machine.run(&["backup", &inner.replace("redis://", "rediss://")]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("hint: redis://"), "{}", said.stderr);
    drop(containers);
    engine.docker(&["network", "rm", &network]);
}

/// PostgreSQL 15 as Debian has it, with what it needs to start.
fn postgres_image(engine: &Engine) -> &'static str {
    static MADE: std::sync::Once = std::sync::Once::new();
    MADE.call_once(|| {
        let (folder, bin) = (tempfile::tempdir().unwrap(), Path::new("/usr/lib/postgresql/15/bin"));
        let busybox = program("busybox").canonicalize().unwrap();
        let programs = ["postgres", "initdb", "psql"].map(|name| bin.join(name));
        // The only thing there that passes bytes: official images have it, too.
        let bash = PathBuf::from("/usr/bin/bash");
        assert!(programs[0].is_file(), "PostgreSQL is not installed: install with ./tests/install");
        root_of(folder.path(), &[programs.as_slice(), &[busybox, bash]].concat());
        let script = "
            mkdir -p bin etc usr/lib/postgresql/15 usr/share/postgresql; chmod 1777 tmp data
            cp -a /usr/lib/postgresql/15/lib usr/lib/postgresql/15/; cp -a /usr/share/postgresql/15 usr/share/postgresql/
            for name in sh cat echo locale kill; do ln -sf /usr/bin/busybox bin/$name; done
            echo 'postgres:x:999:999::/data:/bin/sh' > etc/passwd
            mkdir -p usr/share/zoneinfo; cp -L /usr/share/zoneinfo/UTC usr/share/zoneinfo/";
        super::shell(folder.path(), script);
        engine.import("lifeboat-postgres", folder.path());
    });
    "lifeboat-postgres"
}

/// A PostgreSQL server in a container.
struct Db {
    engine: &'static Engine,
    name: String,
}

impl Db {
    /// Of service `db`, in `network`.
    fn start(engine: &'static Engine, project: &str, network: &str) -> Self {
        let (image, name) = (postgres_image(engine), format!("{project}-db-1"));
        let label = format!("com.docker.compose.project={project}");
        // The password stands in a file inside the container only.
        let script = "B=/usr/lib/postgresql/15/bin; echo pa55word > /tmp/pw
            $B/initdb -D /data/db -U owner -A scram-sha-256 --pwfile=/tmp/pw --no-sync --no-locale -E UTF8 > /dev/null
            echo 'host all all all scram-sha-256' >> /data/db/pg_hba.conf
            exec $B/postgres -D /data/db -c 'listen_addresses=*' -c fsync=off -k /tmp";
        let mut arguments = vec!["run", "-d", "--name", &name, "--network", network, "--user", "999:999"];
        arguments.extend(["--label", &label, "--label", "com.docker.compose.service=db"]);
        arguments.extend(["-e", "POSTGRES_USER=owner", "-e", "POSTGRES_PASSWORD_FILE=/tmp/pw", image]);
        arguments.extend(["sh", "-c", script]);
        engine.docker(&arguments);
        let db = Self { engine, name };
        engine.until("PostgreSQL answers", |_| db.try_sql("postgres", "SELECT 1").status.success());
        db
    }

    fn try_sql(&self, database: &str, text: &str) -> std::process::Output {
        let mut arguments = vec!["exec", "-e", "PGPASSWORD=pa55word", &self.name];
        arguments.extend([
            "/usr/lib/postgresql/15/bin/psql",
            "-h",
            "/tmp",
            "-U",
            "owner",
            "-Atc",
            text,
            database,
        ]);
        self.engine.command(&arguments).output().unwrap()
    }

    fn sql(&self, database: &str, text: &str) -> String {
        let said = self.try_sql(database, text);
        assert!(said.status.success(), "{text}: {}", String::from_utf8_lossy(&said.stderr));
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }
}

#[test]
fn a_postgres_service_without_a_port_is_backed_up_and_restored() {
    let (engine, machine, project) = (engine(), machine(), unique("shop-db"));
    let network = format!("{project}_inner");
    engine.docker(&["network", "create", &network]);
    let containers = Containers(project.clone());
    let db = Db::start(engine, &project, &network);
    db.sql("postgres", "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id");
    let said = machine.run(&["backup", &format!("postgres://db@{project}/postgres")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]).stdout;
    assert!(
        listed.contains(&format!("postgres://db@{project}/postgres")) && !listed.contains("pa55word"),
        "{listed}"
    );
    let said = machine.run(&["restore", "latest", "--to", &format!("postgres://db@{project}/copy")]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(db.sql("copy", "SELECT count(*) FROM orders"), "1000");
    drop(containers);
    engine.docker(&["network", "rm", &network]);
}

/// No address at all: sessions and tools of this machine go through the container.
#[test]
fn a_postgres_service_without_a_network_is_reached_through_its_container() {
    let (engine, machine, project) = (engine(), machine(), unique("lone-db"));
    let _containers = Containers(project.clone());
    let db = Db::start(engine, &project, "none");
    db.sql(
        "postgres",
        "CREATE TABLE orders AS SELECT g AS id, repeat(md5(g::text), 20) AS text FROM generate_series(1, 30000) g",
    );
    let address = format!("postgres://db@{project}/postgres");
    std::fs::create_dir_all(machine.path("tmp")).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = machine.raw(arguments);
        command.env("TMPDIR", machine.path("tmp")).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let nothing_left = || {
        assert!(std::fs::read_dir(machine.path("tmp")).unwrap().next().is_none());
        engine.until("sessions are ended", |_| {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%'";
            db.sql("postgres", sql) == "0"
        });
        // The commands that passed bytes on.
        engine
            .until("nothing passes bytes", |engine| !engine.docker(&["top", &db.name]).contains("/dev/tcp"));
    };
    // Interrupted in the middle: nothing stays, here or there.
    let holding = db
        .engine
        .command(&[
            "exec",
            "-e",
            "PGPASSWORD=pa55word",
            &db.name,
            "/usr/lib/postgresql/15/bin/psql",
            "-h",
            "/tmp",
            "-U",
            "owner",
            "-c",
            "BEGIN; LOCK orders; SELECT pg_sleep(900)",
            "postgres",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let held = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(900)' AND state = 'active'";
    engine.until("the table is locked", |_| db.sql("postgres", held) == "1");
    // Somebody's lock outlasts every delay of a busy machine, and the backup waits for it as long.
    let mut child = run(&["backup", &format!("{address}?lock-timeout=10m")]).spawn().unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'lifeboat%' AND wait_event_type = 'Lock'";
    engine.until("pg_dump waits for the lock", |_| {
        assert!(
            child.try_wait().unwrap().is_none(),
            "{:?}",
            std::io::read_to_string(child.stderr.as_mut().unwrap())
        );
        db.sql("postgres", waiting) == "1"
    });
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let said = machine.said(child.wait_with_output().unwrap());
    assert_eq!(said.code, 130, "{}", said.stderr);
    nothing_left();
    db.sql(
        "postgres",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(900)'",
    );
    let mut holding = holding;
    holding.wait().unwrap();

    let said = machine.said(run(&["backup", &address]).output().unwrap());
    assert_eq!(said.code, 0, "{}", said.stderr);
    nothing_left();
    let listed = machine.run(&["--json", "snapshots"]);
    assert_eq!(listed.json().as_array().map(Vec::len), Some(1), "{}", listed.stdout);
    let copy = format!("postgres://db@{project}/copy");
    let said = machine.said(run(&["restore", "latest", "--to", &copy, "--jobs", "2"]).output().unwrap());
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let sum = "SELECT count(*), sum(hashtext(text)) FROM orders";
    assert_eq!(db.sql("copy", sum), db.sql("postgres", sum));
    nothing_left();
    // A port nobody listens on inside.
    let said = machine.run(&["backup", &format!("postgres://db@{project}:1/postgres")]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(
        said.stderr.contains("port 1 in container") && said.stderr.contains("hint: publish"),
        "{}",
        said.stderr
    );
}

/// MariaDB as Debian has it, over a data folder that is made already.
fn mariadb_image(engine: &Engine) -> &'static str {
    static MADE: std::sync::Once = std::sync::Once::new();
    MADE.call_once(|| {
        let folder = tempfile::tempdir().unwrap();
        let busybox = program("busybox").canonicalize().unwrap();
        root_of(folder.path(), &[program("mariadbd"), program("mariadb"), busybox]);
        let script = format!(
            "mkdir -p bin etc usr/share/mysql; chmod 1777 tmp; cp -a '{}' data/db; chown -R mysql data/db
             cp -a /usr/share/mysql/english /usr/share/mysql/charsets usr/share/mysql/
             for name in sh cat nc; do ln -sf /usr/bin/busybox bin/$name; done
             grep '^mysql:' /etc/passwd > etc/passwd; mkdir -p usr/share/zoneinfo",
            crate::services::mariadb::template().display()
        );
        super::shell(folder.path(), &script);
        engine.import("lifeboat-mariadb", folder.path());
    });
    "lifeboat-mariadb"
}

#[test]
fn a_mariadb_service_without_a_port_or_without_a_network_is_backed_up_and_restored() {
    let (engine, machine, project) = (engine(), machine(), unique("wiki-db"));
    let (image, network) = (mariadb_image(engine), format!("{project}_inner"));
    engine.docker(&["network", "create", &network]);
    let containers = Containers(project.clone());
    let label = format!("com.docker.compose.project={project}");
    let sql = |service: &str, text: &str| {
        let name = format!("{project}-{service}-1");
        let client = program("mariadb").display().to_string();
        let arguments =
            ["exec", "-e", "MYSQL_PWD=pa55word", &name, &client, "-uroot", "-S/tmp/s", "-N", "-e", text];
        engine.command(&arguments).output().unwrap()
    };
    let script = format!(
        "echo pa55word > /tmp/pw; cat > /tmp/init <<'END'
DROP USER IF EXISTS root@'127.0.0.1';
ALTER USER root@localhost IDENTIFIED BY 'pa55word';
CREATE USER root@'%' IDENTIFIED BY 'pa55word';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
END
         exec {} --no-defaults --datadir=/data/db --socket=/tmp/s --pid-file=/tmp/pid --tmpdir=/tmp --init-file=/tmp/init \
         --skip-name-resolve --innodb-flush-method=nosync --innodb-log-file-size=16M",
        program("mariadbd").display()
    );
    for (service, network) in [("db", network.as_str()), ("inner", "none")] {
        let (name, label_service) =
            (format!("{project}-{service}-1"), format!("com.docker.compose.service={service}"));
        let mut arguments = vec!["run", "-d", "--name", &name, "--network", network, "--user", "mysql"];
        arguments.extend(["--label", &label, "--label", &label_service]);
        arguments.extend(["-e", "MARIADB_ROOT_PASSWORD_FILE=/tmp/pw", image, "sh", "-c", &script]);
        engine.docker(&arguments);
        engine.until("MariaDB answers", |engine| {
            assert!(engine.running(&name).len() == 1, "{}", engine.docker(&["logs", &name]));
            let rights = "SHOW GRANTS FOR root@'%'";
            sql(service, rights).status.success()
        });
    }
    let made = sql(
        "db",
        "CREATE DATABASE wiki; CREATE TABLE wiki.page AS SELECT 'a' AS title UNION SELECT 'b'; CREATE VIEW wiki.v AS SELECT * FROM wiki.page",
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (db, inner) = (format!("mariadb://db@{project}/wiki"), format!("mariadb://inner@{project}/wiki"));
    let said = machine.run(&["backup", &db]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]).stdout;
    assert!(listed.contains(&db) && !listed.contains("pa55word"), "{listed}");
    for (service, address) in [("inner", &inner), ("db", &db)] {
        let said = machine.run(&["restore", &format!("{db}@latest"), "--to", address, "--force"]);
        assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
        assert_eq!(sql(service, "SELECT count(*) FROM wiki.v").stdout, b"2\n", "{service}");
        let said = machine.run(&["backup", address]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    drop(containers);
    engine.docker(&["network", "rm", &network]);
}
