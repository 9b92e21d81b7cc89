//! Tools that the tasks call: cargo and the machine's programs.
//!
//! A failing tool produces one sentence with its command line. Its own messages have gone to stderr by then.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};

/// Prints the current step and the elapsed time.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    pub(crate) quiet: bool,
}

impl Progress {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { started: Instant::now(), quiet }
    }

    /// Prints the next step.
    pub(crate) fn heading(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64());
        }
    }
}

/// Returns the cargo that runs us, or else the one in the path.
pub(crate) fn cargo_in(folder: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(folder);
    // Cargo sets variables for xtask. Build scripts below would see a changed environment, so `cargo build` and `cargo
    // xtask` would rebuild shared crates in turns.
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

/// Runs a command to its end, with its output visible.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", line(command));
    }
    Ok(())
}

/// Runs a command to its end, and returns its stdout.
pub(crate) fn capture(command: &mut Command) -> anyhow::Result<String> {
    command.stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start `{}`", line(command)))?;
    if !output.status.success() {
        bail!("`{}` failed ({})", line(command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{}` printed what is not UTF-8", line(command)))
}

/// Runs a command silently, and returns whether it succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Finds a program in the user's path.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Creates a Python virtual environment. Debian's python3 needs an additional package for that.
pub(crate) fn make_venv(progress: &Progress, folder: &Path) -> anyhow::Result<()> {
    // `--clear` removes the remains of an interrupted attempt. Output is hidden, because Python's own error would
    // suggest a package of some distribution.
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

/// A way to install Debian packages without asking for a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Installer {
    /// We are root.
    Root,
    /// sudo asks for no password.
    Sudo,
}

impl Installer {
    /// Returns `None` without apt or without the right to use it.
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

    /// Installs packages. Servers in them are not started.
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
        // Name the packages in the error, because the script's own command line is unreadable.
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
