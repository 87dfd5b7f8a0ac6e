//! Projects rehearsed on a real engine: brought up beside the real one, unable to reach it, and gone afterwards.

use crate::cli::Machine;
use crate::services::dockerd::{Containers, Engine, IMAGE, engine};
use crate::services::program;
use crate::sources::docker::{machine, shell, unique};

/// A web server over a volume, which needs a worker that reads a secret.
struct Shop {
    machine: Machine,
    project: String,
    _containers: Containers,
}

fn run(engine: &Engine, project: &str, service: &str, more: &[&str], command: &[&str]) {
    let name = format!("{project}-{service}-1");
    let labels = [
        format!("com.docker.compose.project={project}"),
        format!("com.docker.compose.service={service}"),
        "traefik.enable=true".to_owned(),
    ];
    let mut arguments = vec!["run", "-d", "--name", &name];
    labels.iter().for_each(|label| arguments.extend(["--label", label]));
    arguments.extend(more);
    arguments.push(IMAGE);
    arguments.extend(command);
    engine.docker(&arguments);
}

impl Shop {
    fn new(name: &str) -> Self {
        let (engine, mut machine, project) = (engine(), machine(), unique(name));
        let (volume, network) = (format!("{project}_data"), format!("{project}_inner"));
        let label = format!("com.docker.compose.project={project}");
        engine.docker(&["volume", "create", "--label", &label, &volume]);
        shell(&engine.folder(&volume), "echo 'hello from the shop' > index.html");
        engine.docker(&["network", "create", "--label", &label, &network]);
        let containers = Containers(project.clone());
        let secret = ["--network", network.as_str(), "-e", "DB_PASSWORD=hunter22"];
        run(engine, &project, "worker", &secret, &["sleep", "600"]);
        let mount = format!("{volume}:/www");
        let depends = "com.docker.compose.depends_on=worker:service_started:false";
        let web =
            ["--network", network.as_str(), "-v", &mount, "-v", "/etc/hostname:/host:ro", "--label", depends];
        run(engine, &project, "web", &web, &["/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/www"]);
        machine.set("PROJECT", &project);
        let said = machine.run(&["backup", "--job", "shop", &format!("docker-project:{project}")]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        Self { machine, project, _containers: containers }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let engine = engine();
        let names = ["web", "worker"].map(|service| format!("{}-{service}-1", self.project));
        let _ = engine.command(&["rm", "-f", "-v", &names[0], &names[1]]).output();
        let _ = engine.command(&["network", "rm", &format!("{}_inner", self.project)]).output();
        let _ = engine.command(&["volume", "rm", &format!("{}_data", self.project)]).output();
    }
}

/// What carries a drill's label: containers, networks, volumes.
fn left(engine: &Engine) -> String {
    let filter = ["--filter", "label=lifeboat.drill"];
    [&["ps", "-aq"][..], &["network", "ls", "-q"], &["volume", "ls", "-q"]]
        .map(|list| engine.docker(&[list, &filter].concat()))
        .concat()
}

#[test]
fn a_project_is_brought_up_beside_the_real_one_and_gone_afterwards() {
    let (engine, shop) = (engine(), Shop::new("drill-up"));
    let busybox = program("busybox").display().to_string();
    // Asked from inside the drill: the page is there, and what keeps it apart is in place.
    let check = format!(
        "set -eu; {busybox} wget -qO- http://$LIFEBOAT_DRILL_HOST_WEB:8080/index.html | grep -q 'hello from the shop'
         id=$(docker ps -q --filter label=lifeboat.drill --filter label=com.docker.compose.service=web)
         docker inspect $id > inspected.json
         docker inspect $(docker ps -q --filter label=lifeboat.drill --filter label=com.docker.compose.service=worker) \
             >> inspected.json
         docker network inspect $(docker network ls -q --filter label=lifeboat.drill) > networks.json"
    );
    let page = "http://web:8080/index.html";
    let said = shop.machine.run(&["drill", "run", "--check-http", page, "--check-command", &check]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(!said.stdout.contains("proves nothing"), "a service of the sandbox does: {}", said.stdout);
    for expected in [
        "internal networks, no published ports",
        "✓ service worker runs",
        "✓ service web    runs",
        "volume drill-up-",
        "not tested: web: without /host, which is /etc/hostname of the host (bind)",
        "secrets replaced by made-up ones: DB_PASSWORD",
        "start ",
    ] {
        assert!(said.stdout.contains(expected), "{expected}: {}", said.stdout);
    }
    let read = |name: &str| std::fs::read_to_string(shop.machine.path(name)).unwrap();
    let (inspected, networks) = (read("inspected.json"), read("networks.json"));
    for real in
        ["hunter22", "traefik", "/etc/hostname\"", "\"Privileged\": true", &format!("\"{}_", shop.project)]
    {
        assert!(!inspected.contains(real), "{real}: {inspected}");
    }
    assert!(inspected.contains("DB_PASSWORD=") && inspected.contains("\"PidsLimit\": 1024"));
    assert!(
        networks.contains("\"Internal\": true") && !networks.contains("\"Internal\": false"),
        "{networks}"
    );
    assert_eq!(left(engine), "");
    engine.assert_no_helpers("the drill");
    assert_eq!(engine.running(&shop.project).len(), 2, "the real ones run on");

    // Whoever is no service of the sandbox is not asked.
    let outside = ["drill", "run", "--no-keep", "--check-http", "http://198.51.100.7/"];
    let said = shop.machine.run(&outside);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("no service 198.51.100.7 runs in the sandbox"), "{}", said.stdout);

    // A secret that is listed keeps its value, which is said; a volume alone is filled and read back.
    shop.machine.file(
        "lifeboat.toml",
        format!(
            "[repository.main]\nurl = \"{}\"\n[drill.real]\nrestore = \"shop@latest\"\nsecrets = [\"DB_PASSWORD\"]\n",
            shop.machine.path("repository").display()
        ),
    );
    let said = shop.machine.run(&["--config", "lifeboat.toml", "drill", "run", "real"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("production's own secrets used, as listed: DB_PASSWORD"), "{}", said.stdout);
    let volume = format!("docker-volume:{}_data", shop.project);
    assert_eq!(shop.machine.run(&["backup", "--job", "volume", &volume]).code, 0);
    let said = shop.machine.run(&["drill", "run", "--snapshot", "volume@latest", "--sandbox", "docker"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(left(engine), "");
}

#[test]
fn a_service_that_does_not_come_up_fails_the_drill_with_its_own_words() {
    let (engine, machine, project) = (engine(), machine(), unique("drill-down"));
    let containers = Containers(project.clone());
    let script = "[ -e /host ] || { echo no licence at /host >&2; exit 3; }; sleep 600";
    run(
        engine,
        &project,
        "app",
        &["--network", "none", "-v", "/etc/hostname:/host:ro"],
        &["sh", "-c", script],
    );
    let depends = "com.docker.compose.depends_on=app:service_started:false";
    run(engine, &project, "web", &["--network", "none", "--label", depends], &["sleep", "600"]);
    assert_eq!(machine.run(&["backup", "--job", "shop", &format!("docker-project:{project}")]).code, 0);
    let said = machine.run(&["drill", "run", "--check-command", "true"]);
    assert_eq!(said.code, 21, "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("✗ service app    ended with exit status 3; it said: no licence"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("✗ service web    not started: it needs app"), "{}", said.stdout);
    assert_eq!(left(engine), "");
    drop(containers);

    // An image that is not there is known before a volume is fetched.
    let (image, name) = (format!("{project}-image"), format!("{project}-gone-1"));
    engine.docker(&["tag", IMAGE, &image]);
    let containers = Containers(project.clone());
    let label = format!("com.docker.compose.project={project}");
    engine.docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--network",
        "none",
        "--label",
        &label,
        &image,
        "sleep",
        "600",
    ]);
    assert_eq!(machine.run(&["backup", "--job", "gone", &format!("docker-project:{project}")]).code, 0);
    drop(containers);
    engine.docker(&["rmi", &image]);
    // By its id it is still there; under a wrong one nothing is.
    let said = machine.run(&["drill", "run", "--snapshot", "gone@latest", "--check-command", "true"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
}

#[test]
fn what_a_killed_drill_left_is_swept_by_the_next_and_nothing_else_is_touched() {
    let (engine, shop) = (engine(), Shop::new("drill-kill"));
    let wait = |child: &mut std::process::Child| {
        let mut tries = 0;
        while !shop.machine.path("started").exists() {
            assert!(child.try_wait().unwrap().is_none() && tries < 1200, "it never came to the check");
            std::thread::sleep(std::time::Duration::from_millis(50));
            tries += 1;
        }
        std::fs::remove_file(shop.machine.path("started")).unwrap();
    };
    for (signal, leaves) in [(rustix::process::Signal::INT, false), (rustix::process::Signal::KILL, true)] {
        let arguments = ["drill", "run", "--check-command", "touch started; sleep 60"];
        let mut child = shop.machine.raw(&arguments).stdout(std::process::Stdio::null()).spawn().unwrap();
        wait(&mut child);
        rustix::process::kill_process(rustix::process::Pid::from_raw(child.id() as i32).unwrap(), signal)
            .unwrap();
        child.wait().unwrap();
        assert_eq!(!left(engine).is_empty(), leaves, "{signal:?}");
    }
    let said = shop.machine.run(&["drill", "run"]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert_eq!(left(engine), "");
    assert_eq!(engine.running(&shop.project).len(), 2, "the real ones run on");
}
