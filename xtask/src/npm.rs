//! Installs npm packages into a folder of their own, below target/.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::bail;

use crate::tools::{self, Installer, Progress};

/// File that lists the installed versions of a folder.
pub(crate) const INSTALLED: &str = "installed.txt";

/// Installs packages like `name@~1.2`, once, and again when the list changes. `shown` is the
/// folder's name in messages.
pub(crate) fn provide(folder: &Path, shown: &str, packages: &[String], progress: &Progress) -> anyhow::Result<()> {
    let wanted = packages.join(" ");
    if is_installed(folder, &wanted) {
        return Ok(());
    }
    if tools::find_program("npm").is_none() {
        let Some(installer) = Installer::find() else {
            bail!("there is no npm: run `sudo apt-get install nodejs npm`, then try again");
        };
        progress.heading("apt-get install nodejs npm");
        installer.install(&["nodejs", "npm"])?;
    }
    progress.heading(format!("npm install {wanted} in {shown}"));
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    // Without a package.json here, npm would look for one in a parent folder.
    fs::write(folder.join("package.json"), "{ \"private\": true }\n")?;
    let mut install = Command::new("npm");
    install.current_dir(folder).args(["install", "--silent", "--no-audit", "--no-fund"]).args(packages);
    tools::run(&mut install)?;
    Ok(fs::write(folder.join(INSTALLED), wanted)?)
}

pub(crate) fn is_installed(folder: &Path, wanted: &str) -> bool {
    fs::read_to_string(folder.join(INSTALLED)).is_ok_and(|installed| installed == wanted)
}
