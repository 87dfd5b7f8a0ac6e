//! Servers in containers that publish no port, found by project and service.

use std::path::{Path, PathBuf};
use std::process::Command;

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
        for name in ["sh", "cat"] {
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
    for service in ["old", "new"] {
        let (name, label_service) =
            (format!("{project}-{service}-1"), format!("com.docker.compose.service={service}"));
        engine.docker(&[
            "run",
            "-d",
            "--name",
            &name,
            "--network",
            &network,
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
        assert!(programs[0].is_file(), "PostgreSQL is not installed: install with ./tests/install");
        root_of(folder.path(), &[programs.as_slice(), &[busybox]].concat());
        let script = "
            mkdir -p bin etc usr/lib/postgresql/15 usr/share/postgresql; chmod 1777 tmp data
            cp -a /usr/lib/postgresql/15/lib usr/lib/postgresql/15/; cp -a /usr/share/postgresql/15 usr/share/postgresql/
            for name in sh cat echo locale; do ln -sf /usr/bin/busybox bin/$name; done
            echo 'postgres:x:999:999::/data:/bin/sh' > etc/passwd
            mkdir -p usr/share/zoneinfo; cp -L /usr/share/zoneinfo/UTC usr/share/zoneinfo/";
        super::shell(folder.path(), script);
        engine.import("lifeboat-postgres", folder.path());
    });
    "lifeboat-postgres"
}

#[test]
fn a_postgres_service_without_a_port_is_backed_up_and_restored() {
    let (engine, machine, project) = (engine(), machine(), unique("shop-db"));
    let image = postgres_image(engine);
    let (network, name) = (format!("{project}_inner"), format!("{project}-db-1"));
    engine.docker(&["network", "create", &network]);
    let containers = Containers(project.clone());
    let label = format!("com.docker.compose.project={project}");
    // The password stands in a file inside the container only.
    let script = "B=/usr/lib/postgresql/15/bin; echo pa55word > /tmp/pw
        $B/initdb -D /data/db -U owner -A scram-sha-256 --pwfile=/tmp/pw --no-sync --no-locale -E UTF8 > /dev/null
        echo 'host all all all scram-sha-256' >> /data/db/pg_hba.conf
        exec $B/postgres -D /data/db -c 'listen_addresses=*' -c fsync=off -k /tmp";
    engine.docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--network",
        &network,
        "--user",
        "999:999",
        "--label",
        &label,
        "--label",
        "com.docker.compose.service=db",
        "-e",
        "POSTGRES_USER=owner",
        "-e",
        "POSTGRES_PASSWORD_FILE=/tmp/pw",
        image,
        "sh",
        "-c",
        script,
    ]);
    let sql = |database: &str, text: &str| {
        let psql = "/usr/lib/postgresql/15/bin/psql";
        let password = "PGPASSWORD=pa55word";
        engine
            .command(&[
                "exec", "-e", password, &name, psql, "-h", "/tmp", "-U", "owner", "-Atc", text, database,
            ])
            .output()
            .unwrap()
    };
    engine.until("PostgreSQL answers", |_| sql("postgres", "SELECT 1").status.success());
    assert!(sql("postgres", "CREATE TABLE orders AS SELECT generate_series(1, 1000) AS id").status.success());

    let said = machine.run(&["backup", &format!("postgres://db@{project}/postgres")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = machine.run(&["--json", "snapshots"]).stdout;
    assert!(
        listed.contains(&format!("postgres://db@{project}/postgres")) && !listed.contains("pa55word"),
        "{listed}"
    );
    let said = machine.run(&["restore", "latest", "--to", &format!("postgres://db@{project}/copy")]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let counted = sql("copy", "SELECT count(*) FROM orders");
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "1000");
    drop(containers);
    engine.docker(&["network", "rm", &network]);
}
