//! Starts the services of docker-compose.yml with the values that Docker Compose itself reads from it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::rabbitmq::Node;
use testbed::{ChildGuard, eventually, eventually_some, free_port};

use crate::admin::client::Client;
use crate::shipped::container::{Container, stop};
use crate::shipped::image::Image;
use crate::shipped::{DRAIN, admit, project, shipped, tool, wait_until_well, warnings};
use crate::world::SOON;

const FILE: &str = "docker-compose.yml";

/// Returns the file with its variables filled in by Docker Compose.
fn compose(variables: &[(&str, &str)]) -> Value {
    let mut command = Command::new(tool("docker-compose"));
    command.current_dir(project()).env_clear().env("HOME", "/").envs(variables.iter().copied());
    command.args(["--file", FILE, "--profile", "*", "config", "--format", "json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().unwrap_or(&Vec::new()).iter().map(|one| text(one).to_owned()).collect()
}

/// Parses a time like `30s`, the form of all times in the file.
fn time(value: &Value) -> Duration {
    let seconds = text(value).strip_suffix('s').and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or_else(|| panic!("{value}: how long is that?")))
}

/// Returns the container of a service that runs our own image.
fn container(compose: &Value, image: &Image, service: &str, reached: &[(&str, String)]) -> Container {
    let name = service;
    let service = &compose["services"][name];
    assert_eq!(service["image"], "notify-host", "{name}");
    let mut container = Container::of(image);
    for (address, here) in reached {
        container.reach(address, here.clone());
    }
    for (name, value) in service["environment"].as_object().unwrap() {
        container.environment.insert(name.clone(), text(value).to_owned());
    }
    for volume in service["volumes"].as_array().into_iter().flatten() {
        let target = text(&volume["target"]);
        match text(&volume["type"]) {
            "bind" => container.bind(text(&volume["source"]).as_ref(), target),
            // A new volume starts with the image's files at its path.
            "volume" => {
                assert_eq!(target, "/var/lib/notify-host");
                container.volume(target, 0o700, image.user, image.user);
            }
            other => panic!("{name} has a volume of the type {other:?}"),
        }
    }
    // Configs come after the volumes, because they contain the volumes' paths.
    let configs: Vec<_> = service["configs"].as_array().into_iter().flatten().collect();
    for config in configs.iter().rev() {
        let content = text(&compose["configs"][text(&config["source"])]["content"]);
        container.file(text(&config["target"]), content, 0o444, 0);
    }
    if service["read_only"] == true {
        assert_eq!(list(&service["tmpfs"]), ["/tmp"], "{name}");
        container.make_read_only();
    }
    container
}

/// Returns the command line of a service: the image's own unless the file overrides it.
fn line(compose: &Value, image: &Image, service: &str) -> Vec<String> {
    let service = &compose["services"][service];
    let of = |key: &str, own: &[String]| if service[key].is_null() { own.to_vec() } else { list(&service[key]) };
    [of("entrypoint", &image.entrypoint), of("command", &image.command)].concat()
}

/// Returns the command of a health check: the image's own unless the file overrides it.
fn health_check(service: &Value, own: &[String]) -> Vec<String> {
    match list(&service["healthcheck"]["test"]).split_first() {
        None => own.to_vec(),
        Some((kind, command)) => {
            assert_eq!(kind, "CMD", "{service}");
            command.to_vec()
        }
    }
}

fn start_mail_catcher(port: u16) -> ChildGuard {
    let python = std::env::var_os("NOTIFY_TEST_PYTHON").expect("run the tests by `cargo xtask test`");
    let mut command = Command::new(python);
    command.arg(project().join("host/tests/mail/relay.py")).args(["--port", &port.to_string()]);
    let catcher = ChildGuard::spawn(command);
    eventually(SOON, "the mail catcher listens", || catcher.stdout().contains("ready"));
    catcher
}

#[test]
fn the_services_of_the_compose_file_work_with_its_own_values() {
    let image = Image::read();
    let plugins = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    image.fill_plugins(plugins.path());
    // The host may only read them.
    fs::set_permissions(plugins.path(), Permissions::from_mode(0o755)).unwrap();
    let compose = compose(&[("NOTIFY_PLUGINS_DIR", plugins.path().to_str().unwrap())]);
    let services = &compose["services"];

    // RabbitMQ's image creates this user, and its health check is one of RabbitMQ's programs.
    let rabbitmq = &services["rabbitmq"];
    let node = Node::start();
    let of_rabbitmq = |name: &str| text(&rabbitmq["environment"][name]);
    admit(&node, of_rabbitmq("RABBITMQ_DEFAULT_USER"), of_rabbitmq("RABBITMQ_DEFAULT_PASS"));
    let probe = health_check(rabbitmq, &[]);
    let probed = node.run(&probe[0], &probe[1..].iter().map(String::as_str).collect::<Vec<_>>());
    assert!(probed.status.success(), "{probe:?}: {probed:?}");

    let mail_port = free_port();
    let catcher = start_mail_catcher(mail_port);
    let reached =
        [("rabbitmq:5672", format!("127.0.0.1:{}", node.port())), ("mailpit:1025", format!("127.0.0.1:{mail_port}"))];
    for (address, _) in &reached {
        assert!(services.get(address.split(':').next().unwrap()).is_some(), "there is no service at {address}");
    }
    let container_of = |service: &str| container(&compose, &image, service, &reached);
    let host_container = container_of("notify-host");
    let host = host_container.start(&line(&compose, &image, "notify-host"));
    wait_until_well(&host_container, &host, &health_check(&services["notify-host"], &image.health_check));
    assert!(host_container.run(&image.health_check).status.success(), "the image's own health check");

    // The dashboard, as the comment at the top of the file describes.
    let token = text(&compose["configs"]["admin-token"]["content"]);
    assert!(shipped(FILE).contains(&format!("its token is {token}\n")), "nobody is told the token");
    let bearer = ("authorization".to_owned(), format!("Bearer {token}"));
    let admin = Client { at: format!("127.0.0.1:{}", host_container.port), headers: vec![bearer] };
    assert_eq!(admin.get("/api/v1/plugins").status, 200);
    let stranger = Client { headers: Vec::new(), ..admin };
    assert_eq!(stranger.get("/api/v1/plugins").status, 401);
    assert_eq!(stranger.get("/").status, 200);

    // order-cli waits only until the host is healthy.
    assert_eq!(services["order-cli"]["depends_on"]["notify-host"]["condition"], "service_healthy");
    let order_cli = container_of("order-cli");
    let order = |arguments: &[&str], input: Option<&str>| {
        let mut line = line(&compose, &image, "order-cli");
        // Arguments of `docker compose run` replace the command.
        line.truncate(list(&services["order-cli"]["entrypoint"]).len());
        line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut command = order_cli.command(&line);
        if let Some(input) = input {
            let file = plugins.path().join("input");
            fs::write(&file, input).unwrap();
            command.stdin(fs::File::open(&file).unwrap());
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let orders = order(&["demo"], None);
    assert_eq!(orders.lines().count(), 2, "{orders}");
    for id in orders.lines() {
        eventually(SOON, "the logger tells of the order", || host.stderr().contains(id));
    }

    // A mail, as the comment at the top of the file describes.
    let toml = plugins.path().join("email.toml");
    let switched_on = fs::read_to_string(&toml).unwrap().replace("enabled = false", "enabled = true");
    fs::write(&toml, switched_on).unwrap();
    eventually(SOON, "the email plugin gets events", || {
        host.stderr().lines().any(|line| line.contains("gets events from now on") && line.contains("email"))
    });
    let written = shipped(FILE);
    let example = written.lines().find_map(|line| line.split_once("echo '")?.1.split_once('\'')).unwrap().0;
    order(&["send", "-"], Some(example));
    let mail = eventually_some(SOON, "the mail arrives", || {
        let lines = catcher.stdout();
        let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line.get("mail").is_some())
    });
    assert!(mail.to_string().contains("you@example.com") && mail.to_string().contains("4711"), "{mail}");

    let told = warnings(&host);
    assert!(told.len() == 1 && told[0].contains("docker-compose.yml ships"), "{told:?}");
    let grace = time(&services["notify-host"]["stop_grace_period"]);
    assert!(grace > DRAIN);
    stop(&host, &image.stop_signal, grace);
}

#[test]
fn the_compose_file_publishes_on_loopback_only_and_takes_the_users_own_values() {
    let own = "0123456789abcdef0123456789abcdef";
    let compose = compose(&[("NOTIFY_ADMIN_TOKEN", own)]);
    assert_eq!(compose["configs"]["admin-token"]["content"], own);
    let mut published = Vec::new();
    for (name, service) in compose["services"].as_object().unwrap() {
        for port in service["ports"].as_array().into_iter().flatten() {
            assert_eq!(port["host_ip"], "127.0.0.1", "{name} publishes {port}");
            published.push((name.as_str(), port["target"].clone(), text(&port["published"]).to_owned()));
        }
    }
    let host = ("notify-host", Value::from(Image::read().port), Image::read().port.to_string());
    assert!(published.contains(&host), "{published:?}");
    // By default the folder that `cargo xtask guests` fills.
    let bound = &compose["services"]["notify-host"]["volumes"][0];
    assert_eq!(text(&bound["source"]), project().join("target/plugins").display().to_string());
}
