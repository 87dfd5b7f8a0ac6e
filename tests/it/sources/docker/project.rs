//! Projects: Compose by its labels, a Swarm of one; taken away whole and built again.

use super::{filled, listing, machine, shell, unique};
use crate::services::dockerd::{Containers, IMAGE, engine};

#[test]
fn a_compose_project_is_captured_and_built_again() {
    let (engine, machine, project) = (engine(), machine(), unique("shop"));
    let file = machine.file("compose.yaml", "services: {web: {image: busybox}}\n");
    let (volume, network, name) =
        (format!("{project}_data"), format!("{project}_inner"), format!("{project}-web-1"));
    let label = format!("com.docker.compose.project={project}");
    let files = format!("com.docker.compose.project.config_files={}", file.display());
    engine.docker(&["volume", "create", "--label", &label, "--label", "color=blue", &volume]);
    filled(engine, &volume);
    engine.docker(&["network", "create", "--label", &label, "--internal", &network]);
    let _containers = Containers(project.clone());
    let mount = format!("{volume}:/data");
    let labels = [&label, &files, "com.docker.compose.service=web"];
    let mut arguments =
        vec!["run", "-d", "--name", &name, "--network", &network, "-v", &mount, "-e", "COLOR=blue"];
    labels.iter().for_each(|label| arguments.extend(["--label", label]));
    arguments.extend([IMAGE, "sleep", "600"]);
    engine.docker(&arguments);
    let before = listing(&engine.folder(&volume), false);

    let address = format!("docker-project:{project}");
    let said = machine.run(&["backup", &address]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let listed = machine.run(&["ls", "latest"]).stdout;
    for part in ["/project/containers.json", "/project/networks.json", "compose.yaml", "/volumes/"] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert!(machine.run(&["dump", "latest:/project/images.json"]).stdout.contains(IMAGE));

    engine.docker(&["rm", "-f", &name]);
    engine.docker(&["network", "rm", &network]);
    engine.docker(&["volume", "rm", &volume]);
    let said = machine.run(&["restore", "latest", "--to", &address]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains(&format!("containers made: {name}")), "{}{}", said.stdout, said.stderr);
    assert_eq!(listing(&engine.folder(&volume), false), before);
    assert_eq!(engine.running(&project), [name.as_str()]);
    assert_eq!(engine.docker(&["volume", "inspect", "--format", "{{.Labels.color}}", &volume]), "blue");
    assert_eq!(engine.docker(&["network", "inspect", "--format", "{{.Internal}}", &network]), "true");
    let environment = engine.docker(&["inspect", "--format", "{{.Config.Env}}", &name]);
    assert!(environment.contains("COLOR=blue"), "{environment}");

    // Another name is not made up, and what runs is not taken apart.
    let said = machine.run(&["restore", "latest", "--to", "docker-project:other"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    let said = machine.run(&["restore", "latest", "--to", &address, "--force"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    engine.docker(&["rm", "-f", &name]);
    engine.docker(&["network", "rm", &network]);
    let said = machine.run(&["backup", "docker-project:no-such-project"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert!(said.stderr.contains("there is no project"), "{}", said.stderr);
}

#[test]
fn a_swarm_stack_is_scaled_down_for_the_read_captured_and_built_again() {
    let (engine, machine, stack) = (engine(), machine(), unique("stack"));
    engine.swarm();
    let (volume, service) = (format!("{stack}_data"), format!("{stack}_web"));
    let (config, secret) = (format!("{stack}_conf"), format!("{stack}_key"));
    let label = format!("com.docker.stack.namespace={stack}");
    engine.docker_with(&["config", "create", "--label", &label, &config, "-"], "listen = 80\n");
    engine.docker_with(&["secret", "create", "--label", &label, &secret, "-"], "hidden");
    engine.docker(&["volume", "create", "--label", &label, &volume]);
    shell(&engine.folder(&volume), "echo kept > kept");
    let mount = format!("type=volume,source={volume},target=/data");
    let script =
        "trap 'echo ended >> /data/log; exit 0' TERM; echo begun >> /data/log; while :; do sleep 0.05; done";
    engine.docker(&[
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        &service,
        "--label",
        &label,
        "--container-label",
        &label,
        "--container-label",
        "lifeboat.stop=true",
        "--mount",
        &mount,
        "--config",
        &config,
        "--secret",
        &secret,
        IMAGE,
        "sh",
        "-c",
        script,
    ]);
    let log = engine.folder(&volume).join("log");
    engine.until("the service runs", |_| log.exists());

    let address = format!("docker-project:{stack}");
    let said = machine.run(&["backup", &address]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stderr.contains(&format!("not in the snapshot: {secret}")), "{}", said.stderr);
    let captured = machine.run(&["dump", &format!("latest:/volumes/{volume}/log")]).stdout;
    assert_eq!(captured, "begun\nended\n");
    engine.until("the service runs again", |engine| engine.running(&service).len() == 1);
    let replicas =
        engine.docker(&["service", "inspect", "--format", "{{.Spec.Mode.Replicated.Replicas}}", &service]);
    assert_eq!(replicas, "1");

    engine.docker(&["service", "rm", &service]);
    engine.until("its container is gone", |engine| engine.running(&service).is_empty());
    engine.docker(&["config", "rm", &config]);
    engine.until("the volume is free", |engine| {
        engine.command(&["volume", "rm", &volume]).output().unwrap().status.success()
    });
    let said = machine.run(&["restore", "latest", "--to", &address]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains(&format!("services made: {service}")), "{}{}", said.stdout, said.stderr);
    engine.until("the restored service runs", |engine| engine.running(&service).len() == 1);
    let data = engine.docker(&["config", "inspect", "--format", "{{json .Spec.Data}}", &config]);
    assert_eq!(data, "\"bGlzdGVuID0gODAK\"");
    engine.docker(&["service", "rm", &service]);
}

#[test]
fn what_cannot_be_made_is_named_and_makes_the_restore_partial() {
    let (engine, machine, project) = (engine(), machine(), unique("half"));
    let (image, name) = (format!("{project}-image"), format!("{project}-web-1"));
    engine.docker(&["tag", IMAGE, &image]);
    let label = format!("com.docker.compose.project={project}");
    let containers = Containers(project.clone());
    let mount = format!("{project}_data:/data");
    engine.docker(&[
        "create",
        "--name",
        &name,
        "--network",
        "none",
        "-v",
        &mount,
        "--label",
        &label,
        &image,
        "true",
    ]);
    let address = format!("docker-project:{project}");
    let said = machine.run(&["backup", &address]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    engine.docker(&["rm", &name]);
    engine.docker(&["rmi", &image]);
    engine.docker(&["volume", "rm", &format!("{project}_data")]);
    let said = machine.run(&["restore", "latest", "--to", &address]);
    assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
    let expected = format!("not done: container {name}: image {image} is not there: docker pull {image}");
    assert!(said.stderr.contains(&expected), "{}", said.stderr);
    engine.docker(&["volume", "rm", &format!("{project}_data")]);
    let said = machine.run(&["--json", "restore", "latest", "--to", &address]);
    assert_eq!(
        (said.code, said.json()["not_done"].as_array().map(Vec::len)),
        (3, Some(1)),
        "{}",
        said.stdout
    );
    drop(containers);
}
