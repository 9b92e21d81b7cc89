//! `notify-host health`, as a container's health check runs it.

use std::process::{Command, Output};

use testbed::{eventually, free_port};

use crate::world::{SOON, World};

fn health(url: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_notify-host"));
    command.env_remove("NOTIFY_ADMIN_URL").args(["health", "--url", url]).args(arguments).output().unwrap()
}

#[test]
fn a_health_check_fails_for_its_reason_and_a_probe_of_readiness_says_it() {
    let world = World::on_sqlite();
    let (host, admin) = world.host_with_admin(&[]);
    let url = format!("http://{}", admin.at);
    let well = health(&url, &[]);
    assert!(well.status.success() && well.stdout == b"ok\n", "{well:?}");
    let not_yet = health(&url, &["--ready"]);
    let said = String::from_utf8_lossy(&not_yet.stderr);
    assert!(not_yet.status.code() == Some(1) && said.contains("the host is not ready: no plugin of "), "{not_yet:?}");
    world.plug_logger();
    eventually(SOON, "it is ready", || health(&url, &["--ready"]).stdout == b"ready\n");
    host.stop();
    let gone = health(&url, &[]);
    let said = String::from_utf8_lossy(&gone.stderr);
    assert!(gone.status.code() == Some(1) && said.contains("cannot reach a host at http://127.0.0.1:"), "{gone:?}");
    assert_eq!(health(&format!("http://127.0.0.1:{}", free_port()), &["--ready"]).status.code(), Some(1));
}
