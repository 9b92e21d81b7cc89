//! The RabbitMQ servers that the tests start: the one of this machine's Debian release, and RabbitMQ 4 in a folder
//! below target/ that holds a small Debian system.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use testbed::rabbitmq::{is_installed, is_system};

use crate::project::Project;
use crate::tools::{self, Installer, Progress};

/// The folder of RabbitMQ 4, below target/.
const FOUR: &str = "rabbitmq-4";
/// Debian's first release with RabbitMQ 4.
const FOUR_DEBIAN: &str = "trixie";

/// Installs a server if there is none.
pub(crate) fn provide(progress: &Progress) -> anyhow::Result<()> {
    if is_installed() {
        return Ok(());
    }
    let Some(installer) = Installer::find() else {
        bail!("the tests want a RabbitMQ server: run `sudo apt-get install rabbitmq-server`, then try again");
    };
    progress.heading("apt-get install rabbitmq-server");
    installer.install(&["rabbitmq-server"])?;
    if !is_installed() {
        bail!("the package rabbitmq-server is installed, but its programs are not where they were looked for");
    }
    Ok(())
}

/// Returns the folder with RabbitMQ 4.
pub(crate) fn provide_four(project: &Project, progress: &Progress) -> anyhow::Result<PathBuf> {
    let folder = project.target.join(FOUR);
    if !is_system(&folder) {
        make_four(&folder, progress).context("the tests want RabbitMQ 4")?;
    }
    Ok(folder)
}

fn make_four(folder: &Path, progress: &Progress) -> anyhow::Result<()> {
    // Running the programs in it takes root as well.
    let Some(installer @ Installer::Root) = Installer::find() else { bail!("that takes root, and apt-get") };
    if tools::find_program("debootstrap").is_none() {
        progress.heading("apt-get install debootstrap");
        installer.install(&["debootstrap", "debian-archive-keyring"])?;
    }
    progress.heading(format!("debootstrap: a Debian {FOUR_DEBIAN} with RabbitMQ 4, in target/{FOUR}"));
    let unfinished = folder.with_extension("unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).with_context(|| format!("cannot remove {}", unfinished.display()))?;
    }
    let mut debootstrap = Command::new("debootstrap");
    debootstrap.args(["--variant=minbase", "--include=rabbitmq-server", FOUR_DEBIAN]).arg(&unfinished);
    // debootstrap lists every package, and its errors, on stdout.
    let output = debootstrap.stdin(Stdio::null()).output().context("cannot start debootstrap")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout);
        bail!("debootstrap failed: {}", text.lines().last().unwrap_or_default());
    }
    fs::rename(&unfinished, folder).with_context(|| format!("cannot make {}", folder.display()))
}
