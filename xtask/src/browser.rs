//! The browser for the dashboard tests: Debian's Chromium, with npm packages that drive it and check the page.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::npm;
use crate::project::Project;
use crate::tools::{Installer, Progress};

/// Variable that gives the tests the packages' folder.
pub(crate) const VARIABLE: &str = "NOTIFY_TEST_BROWSER";
/// The folder, below target/.
const FOLDER: &str = "browser";
/// Path of the browser from Debian's package, which the tests use.
const CHROMIUM: &str = "/usr/bin/chromium";
const PACKAGES: [&str; 2] = ["playwright-core@~1.65.1", "axe-core@~4.14.1"];

/// Returns the folder with `node_modules`.
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
        // Without any font the page would show no text.
        installer.install(&["chromium", "fonts-liberation"])?;
        if !Path::new(CHROMIUM).exists() {
            bail!("the package chromium is installed, but there is no {CHROMIUM}");
        }
    }
    npm::provide(folder, &format!("target/{FOLDER}"), &PACKAGES.map(str::to_owned), progress)
        .context("cannot get what drives it")
}
