//! Runs two pods with the values of packaging/kubernetes/notify-host.yml, and probes them as the kubelet does.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testbed::rabbitmq::Node;
use testbed::{ChildGuard, eventually};

use crate::admin::client::Client;
use crate::shipped::container::{Container, stop};
use crate::shipped::image::Image;
use crate::shipped::{DRAIN, READY, admit, project, tool, warnings};
use crate::world::{SOON, World, built};

const FILE: &str = "packaging/kubernetes/notify-host.yml";
/// The pod's address, which the kubelet uses for its probes.
const POD: &str = "10.42.0.17";

struct Manifest(Vec<Value>);

impl Manifest {
    fn read() -> Self {
        let mut python = Command::new(tool("python"));
        python.args(["-c", "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"]);
        let output = python.arg(project().join(FILE)).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    fn of(&self, kind: &str) -> &Value {
        self.0.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("there is no {kind}"))
    }

    fn pod(&self) -> &Value {
        &self.of("Deployment")["spec"]["template"]
    }

    fn host(&self) -> &Value {
        let containers = self.pod()["spec"]["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 1);
        &containers[0]
    }

    fn secret(&self, key: &str) -> &str {
        text(&self.of("Secret")["stringData"][key])
    }

    /// Returns a container with the files of the image and the pod.
    fn container(&self, image: &Image, broker: &(String, String)) -> Container {
        let (pod, host) = (&self.pod()["spec"], self.host());
        let mut container = Container::of(image);
        container.reach(&broker.0, broker.1.clone());
        let group = pod["securityContext"]["fsGroup"].as_u64().map(|group| u32::try_from(group).unwrap()).unwrap();
        for user in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(pod["securityContext"][user], image.user, "{user}");
        }
        for variable in host["env"].as_array().unwrap() {
            let from = &variable["valueFrom"]["secretKeyRef"];
            assert_eq!(from["name"], self.of("Secret")["metadata"]["name"]);
            container
                .environment
                .insert(text(&variable["name"]).to_owned(), self.secret(text(&from["key"])).to_owned());
        }
        container.volume("/plugins", 0o755, 0, 0);
        image.fill_plugins(container.translate("/plugins").as_ref());
        let mut files = Vec::new();
        for mount in host["volumeMounts"].as_array().unwrap() {
            let path = text(&mount["mountPath"]);
            let volumes = pod["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("a volume of that name");
            if volume.get("emptyDir").is_some() {
                // The kubelet makes an emptyDir writable for everybody and sets its group.
                if path != "/tmp" {
                    container.volume(path, 0o2777, 0, group);
                }
            } else if let Some(secret) = volume.get("secret") {
                assert_eq!(secret["secretName"], self.of("Secret")["metadata"]["name"]);
                let mode = u32::try_from(secret["defaultMode"].as_u64().unwrap()).unwrap();
                for item in secret["items"].as_array().unwrap() {
                    let content = self.secret(text(&item["key"])).to_owned();
                    files.push((format!("{path}/{}", text(&item["path"])), content, mode));
                }
            } else {
                let config = self.of("ConfigMap");
                assert_eq!(volume["configMap"]["name"], config["metadata"]["name"]);
                for (key, content) in config["data"].as_object().unwrap() {
                    files.push((format!("{path}/{key}"), text(content).to_owned(), 0o644));
                }
            }
        }
        // Add the settings last, when all paths in them are known.
        files.sort_by_key(|(path, ..)| path.contains("/etc/"));
        for (path, content, mode) in files {
            container.file(&path, &content, mode, group);
        }
        if host["securityContext"]["readOnlyRootFilesystem"] == true {
            container.make_read_only();
        }
        container
    }

    /// Sends one probe request as the kubelet does.
    fn is_well(&self, probe: &str, port: u16) -> bool {
        let request = &self.host()[probe]["httpGet"];
        let ports = self.host()["ports"].as_array().unwrap();
        let named = ports.iter().find(|port| port["name"] == request["port"]).expect("a port of that name");
        assert_eq!(named["containerPort"], Image::read().port);
        let kubelet = Client { at: format!("127.0.0.1:{port}"), headers: Vec::new() };
        let called = format!("{POD}:{}", named["containerPort"]);
        std::net::TcpStream::connect(&kubelet.at).is_ok()
            && (200..400).contains(&kubelet.ask("GET", text(&request["path"]), &[("host", &called)], "").status)
    }

    fn wait_until_well(&self, probe: &str, port: u16, host: &ChildGuard, patience: Duration) {
        eventually(patience, &format!("the {probe} succeeds"), || {
            assert!(host.wait_timeout(Duration::ZERO).is_none(), "{}", host.stderr());
            self.is_well(probe, port)
        });
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

/// Splits a URL into user, password, and host with port.
fn parts(url: &str) -> (&str, &str, &str) {
    let (login, rest) = url.strip_prefix("amqp://").and_then(|rest| rest.split_once('@')).expect("a URL with a user");
    let (user, password) = login.split_once(':').unwrap();
    (user, password, rest.split_once('/').unwrap().0)
}

#[test]
fn the_pods_of_the_manifest_work_with_its_own_values() {
    let (manifest, image) = (Manifest::read(), Image::read());
    let node = Node::start();
    let url = manifest.secret("broker").to_owned();
    let (user, password, address) = parts(&url);
    admit(&node, user, password);
    let broker = (address.to_owned(), format!("127.0.0.1:{}", node.port()));
    let line: Vec<_> = image
        .entrypoint
        .iter()
        .cloned()
        .chain(manifest.host()["args"].as_array().unwrap().iter().map(|argument| text(argument).to_owned()))
        .collect();
    let replicas = manifest.of("Deployment")["spec"]["replicas"].as_u64().unwrap();
    let pods: Vec<_> = (0..replicas)
        .map(|_| {
            let container = manifest.container(&image, &broker);
            let host = container.start(&line);
            (container, host)
        })
        .collect();
    for (container, host) in &pods {
        let probe = &manifest.host()["startupProbe"];
        let patience = probe["periodSeconds"].as_u64().unwrap() * probe["failureThreshold"].as_u64().unwrap();
        manifest.wait_until_well("startupProbe", container.port, host, Duration::from_secs(patience));
        manifest.wait_until_well("readinessProbe", container.port, host, READY);
        assert!(manifest.is_well("livenessProbe", container.port), "{}", host.stderr());
    }

    let mut order = Command::new(built("NOTIFY_TEST_BIN", "order-cli"));
    order.args(["--broker", &url.replace(&broker.0, &broker.1), "demo"]);
    let ordered = order.output().unwrap();
    assert!(ordered.status.success(), "{ordered:?}");
    let orders = String::from_utf8(ordered.stdout).unwrap();
    for id in orders.lines() {
        let tells =
            |host: &ChildGuard| host.stderr().lines().any(|line| line.contains("\"logger\"") && line.contains(id));
        eventually(SOON, "one of the pods tells of the order", || pods.iter().any(|(_, host)| tells(host)));
        assert_eq!(pods.iter().filter(|(_, host)| tells(host)).count(), 1, "each event is handled by one");
    }

    for (container, host) in &pods {
        // The placeholder in the Secret grants no access, and the answer says why.
        let placeholder = ("authorization".to_owned(), format!("Bearer {}", manifest.secret("admin-token")));
        let admin = Client { at: format!("127.0.0.1:{}", container.port), headers: vec![placeholder] };
        let refused = admin.get("/api/v1/plugins");
        assert!(refused.status == 401 && refused.error().contains("placeholder"), "{refused:?}");
        let told = warnings(host);
        assert!(told.len() == 1 && told[0].contains("it still holds a placeholder"), "{told:?}");
        let grace = manifest.pod()["spec"]["terminationGracePeriodSeconds"].as_u64().map(Duration::from_secs).unwrap();
        assert!(grace > DRAIN);
        stop(host, &image.stop_signal, grace);
    }
}

#[test]
fn the_settings_in_the_manifest_are_good_and_its_parts_find_each_other() {
    let manifest = Manifest::read();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("notify-host.toml");
    std::fs::create_dir(folder.path().join("plugins")).unwrap();
    std::fs::write(&file, text(&manifest.of("ConfigMap")["data"]["notify-host.toml"])).unwrap();
    let mut check = World::notify_host(&["config", "check", "--config"]);
    let checked = check.arg(&file).arg("--plugins").arg(folder.path().join("plugins")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let labels = &manifest.pod()["metadata"]["labels"];
    assert_eq!(&manifest.of("Deployment")["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&manifest.of("Service")["spec"]["selector"], labels);
    assert_eq!(&manifest.of("PodDisruptionBudget")["spec"]["selector"]["matchLabels"], labels);
    let port = &manifest.of("Service")["spec"]["ports"][0];
    assert_eq!((&port["targetPort"], &port["port"]), (&manifest.host()["ports"][0]["name"], &Value::from(9471)));
}
