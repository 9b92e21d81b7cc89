//! Checks the files that ship. The compose file, the manifest for Kubernetes and the image are read by the programs
//! they are meant for, and the real programs start with the very values in them.
//!
//! No container engine is needed; see [`container`]. The Debian package and the systemd unit are tested in
//! `debian_package.rs`, Prometheus and Grafana in `monitoring.rs`.

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

/// Maximum time until a host is ready. It compiles plugins, on two cores that other tests use as well.
const READY: Duration = Duration::from_mins(4);
/// The default of `drain-timeout`. Every grace period must be longer.
const DRAIN: Duration = Duration::from_secs(25);

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn shipped(file: &str) -> String {
    fs::read_to_string(project().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns a container tool that `cargo xtask test` has installed.
fn tool(program: &str) -> PathBuf {
    let folder = env::var_os("NOTIFY_TEST_CONTAINER_TOOLS");
    let folder = folder.expect("NOTIFY_TEST_CONTAINER_TOOLS is not set: run the tests by `cargo xtask test`");
    Path::new(&folder).join("bin").join(program)
}

/// Adds a user with full permissions to RabbitMQ.
fn admit(node: &Node, user: &str, password: &str) {
    node.ctl(&["add_user", user, password]);
    node.ctl(&["set_permissions", user, ".*", ".*", ".*"]);
}

/// Waits until this probe command of the container succeeds.
fn wait_until_well(container: &Container, host: &ChildGuard, probe: &[String]) {
    eventually(READY, &format!("{probe:?} succeeds"), || {
        assert!(host.wait_timeout(Duration::ZERO).is_none(), "{}", host.stderr());
        container.run(probe).status.success()
    });
}

/// Returns the host's warnings and errors.
fn warnings(host: &ChildGuard) -> Vec<String> {
    let log = host.stderr();
    log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).map(str::to_owned).collect()
}

/// Shipped files, each with the test file that starts it or has its program read it.
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
/// Files that only the checks use.
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
        // The Debian package takes the whole folder, without naming its files.
        assert!(source.contains(name) || file.starts_with("debian/"), "{test} does not name {file}");
    }
}
