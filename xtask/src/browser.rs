//! What looks at the dashboard as a person would: Debian's Chromium, and what drives it and judges the page,
//! from npm.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::npm;
use crate::project::Project;
use crate::tools::{Installer, Progress};

/// Where the tests find the packages.
pub(crate) const VARIABLE: &str = "NOTIFY_TEST_BROWSER";
/// The folder, below target/.
const FOLDER: &str = "browser";
/// Where Debian's package puts the browser, and the tests look for it.
const CHROMIUM: &str = "/usr/bin/chromium";
const PACKAGES: [&str; 2] = ["playwright-core@~1.65.1", "axe-core@~4.14.1"];

/// The folder with `node_modules`.
pub(crate) fn provide(project: &Project, progress: &Progress) -> anyhow::Result<PathBuf> {
    let folder = project.target.join(FOLDER);
    make(&folder, progress).context("the tests want a browser")?;
    Ok(folder)
}

fn make(folder: &Path, progress: &Progress) -> anyhow::Result<()> {
    if !Path::new(CHROMIUM).exists() {
        let Some(installer) = Installer::find() else {
            bail!("there is no {CHROMIUM}: run `sudo apt-get install chromium`, then try again");
        };
        progress.heading("apt-get install chromium");
        // Without any font there is nothing to see.
        installer.install(&["chromium", "fonts-liberation"])?;
        if !Path::new(CHROMIUM).exists() {
            bail!("the package chromium is installed, but there is no {CHROMIUM}");
        }
    }
    npm::provide(folder, &format!("target/{FOLDER}"), &PACKAGES.map(str::to_owned), progress)
        .context("cannot get what drives it")
}
