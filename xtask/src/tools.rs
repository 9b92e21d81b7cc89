//! The tools that the tasks call: cargo, and what the machine has.
//!
//! A tool that fails becomes one sentence that names its command line; what it had to say has
//! gone to stderr by then.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

/// What xtask is at, and since when.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    pub(crate) quiet: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { started: Instant::now(), quiet }
    }

    /// Says what comes next.
    pub(crate) fn heading(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64());
        }
    }
}

/// Cargo, the one that runs us where there is one.
pub(crate) fn cargo_in(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder);
    // What cargo tells xtask of itself would look like a changed environment to the build
    // scripts below, and rebuild in turns what `cargo build` and `cargo xtask` share.
    for (name, _) in std::env::vars_os() {
        if is_about_xtask(&name) {
            cargo.env_remove(name);
        }
    }
    cargo
}

fn is_about_xtask(variable: &OsStr) -> bool {
    let name = variable.to_string_lossy();
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || name == "OUT_DIR"
}

/// Runs it to its end; its output is the user's.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs it to its end, and returns what it wrote on stdout.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    command.stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed what is not UTF-8", line(command)))
}

/// Whether it runs and succeeds. It says nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Where the program of this name is, of those that the user's shell would find.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Makes a Python environment of its own. Debian's python3 cannot until a package is added.
pub(crate) fn make_venv(progress: &Progress, folder: &Path) -> anyhow::Result<()> {
    // What an interrupted try has left would be taken for good. It says nothing if it fails: Python's
    // own words would be about a package of some distribution.
    let makes = || succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder));
    if makes() {
        return Ok(());
    }
    let Some(installer) = Installer::find() else {
        bail!("the tests want Python with venv: run `sudo apt-get install python3-venv`, then try again");
    };
    progress.heading("apt-get install python3-venv");
    installer.install(&["python3-venv"])?;
    if !makes() {
        bail!("`python3 -m venv {}` fails even with the package python3-venv", folder.display());
    }
    Ok(())
}

/// How Debian's packages can be installed here without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installer {
    /// We are root.
    Root,
    /// sudo asks for no password.
    Sudo,
}

impl Installer {
    /// `None`: no apt, or no right to use it.
    pub(crate) fn find() -> Option<Self> {
        find_program("apt-get")?;
        if rustix::process::geteuid().is_root() {
            Some(Self::Root)
        } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
            Some(Self::Sudo)
        } else {
            None
        }
    }

    /// Installs packages. No server that comes with them is started.
    pub(crate) fn install(self, packages: &[&str]) -> anyhow::Result<()> {
        let mut command = match self {
            Self::Root => Command::new("sh"),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.args(["-n", "sh"]);
                sudo
            }
        };
        command.args(["-c", include_str!("../apt-install.sh"), "apt-install"]).args(packages);
        // The script itself would be an unreadable command line in an error.
        let status = command.stdin(Stdio::null()).status().context("cannot start sh")?;
        if !status.success() {
            bail!("`apt-get install {}` failed ({status})", packages.join(" "));
        }
        Ok(())
    }
}

fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut line = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err().to_string();
        assert_eq!(error, "`sh -c exit 3` failed (exit status: 3)");
        let error = format!("{:#}", run(&mut Command::new("no-such-program")).unwrap_err());
        assert!(error.starts_with("cannot start `no-such-program`: "), "{error}");
    }

    #[test]
    fn what_cargo_says_of_xtask_is_not_handed_on() {
        for (variable, about) in
            [("CARGO_PKG_NAME", true), ("CARGO_MANIFEST_DIR", true), ("CARGO_HOME", false), ("PATH", false)]
        {
            assert_eq!(is_about_xtask(OsStr::new(variable)), about, "{variable}");
        }
    }
}
