//! What ships works as it ships: the compose file, the manifest for Kubernetes and the image are read as their own programs
//! read them, and the real programs are started with the very values in them.
//!
//! There need be no container engine; see [`container`]. The Debian package and systemd's unit have tests of their
//! own in `debian_package.rs`, Prometheus and Grafana in `monitoring.rs`.

mod compose;
mod container;
mod documents;
mod image;
mod kubernetes;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::rabbitmq::Node;
use testbed::{ChildGuard, eventually};

use crate::shipped::container::Container;

/// Plugins are compiled within, on two cores that other tests use as well.
const READY: Duration = Duration::from_mins(4);
/// The default of `drain-timeout`. Whatever stops a host must be more patient.
const DRAIN: Duration = Duration::from_secs(25);

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn shipped(file: &str) -> String {
    fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A program of those that `cargo xtask test` has installed to read what is for containers.
fn tool(program: &str) -> PathBuf {
    let folder = env::var_os("NOTIFY_TEST_CONTAINER_TOOLS");
    let folder = folder.expect("NOTIFY_TEST_CONTAINER_TOOLS is not set: run the tests by `cargo xtask test`");
    Path::new(&folder).join("bin").join(program)
}

/// What a user with these rights finds in RabbitMQ.
fn admit(node: &Node, user: &str, password: &str) {
    node.ctl(&["add_user", user, password]);
    node.ctl(&["set_permissions", user, ".*", ".*", ".*"]);
}

/// Until this command of the container's succeeds, as a probe.
fn wait_until_well(container: &Container, host: &ChildGuard, probe: &[String]) {
    eventually(READY, &format!("{probe:?} succeeds"), || {
        assert!(host.wait_timeout(Duration::ZERO).is_none(), "{}", host.stderr());
        container.run(probe).status.success()
    });
}

/// What the host warned of.
fn warnings(host: &ChildGuard) -> Vec<String> {
    let log = host.stderr();
    log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).map(str::to_owned).collect()
}

/// Each is started, or read by the program that it is for, by a test in this file.
const STARTED_BY: [(&str, &str); 13] = [
    ("debian/changelog", "debian_package.rs"),
    ("debian/control", "debian_package.rs"),
    ("debian/copyright", "debian_package.rs"),
    ("debian/lintian-overrides", "debian_package.rs"),
    ("debian/notify-host.toml", "debian_package.rs"),
    ("debian/postinst", "debian_package.rs"),
    ("debian/postrm", "debian_package.rs"),
    ("debian/prerm", "debian_package.rs"),
    ("grafana/notify-host.json", "monitoring.rs"),
    ("kubernetes/notify-host.yml", "shipped/kubernetes.rs"),
    ("prometheus/alerts.yml", "monitoring.rs"),
    ("prometheus/prometheus.yml", "monitoring.rs"),
    ("systemd/notify-host.service", "debian_package.rs"),
];
/// What is only for the checks.
const FOR_CHECKS: [&str; 1] = ["prometheus/alerts_test.yml"];

#[test]
fn every_file_in_packaging_is_started_by_a_test() {
    let packaging = project().join("packaging");
    let mut files = BTreeSet::new();
    for folder in fs::read_dir(&packaging).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            files.insert(path.strip_prefix(&packaging).unwrap().display().to_string());
        }
    }
    let known = STARTED_BY.iter().map(|(file, _)| *file).chain(FOR_CHECKS).map(str::to_owned);
    assert_eq!(files, known.collect());
    for (file, test) in STARTED_BY {
        let source = fs::read_to_string(project().join("host/tests/end_to_end").join(test)).unwrap();
        let name = file.rsplit('/').next().unwrap();
        // The package has all of its folder in it.
        assert!(source.contains(name) || file.starts_with("debian/"), "{test} does not name {file}");
    }
}
