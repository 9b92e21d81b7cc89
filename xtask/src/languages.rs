//! Tools for plugins in other languages: componentize-py and Zig's C compiler from Python's registry, and the two for
//! JavaScript from npm's. The versions are those of the templates of `plugin new`, so that the tests build with the
//! same tools as an author.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::guests;
use crate::npm::{self, INSTALLED, is_installed};
use crate::project::Project;
use crate::tools::{self, Progress};

/// Variable that gives the tests the tools' folder.
pub(crate) const VARIABLE: &str = "NOTIFY_TEST_LANGUAGES";
/// The folder, below target/.
const FOLDER: &str = "languages";

const TEMPLATES: &str = "host/src/cli/plugin/templates";
/// Templates with a requirements.txt.
const PYTHON_TEMPLATES: [&str; 2] = ["python", "c"];
const NPM_TEMPLATE: &str = "js/package.json";
/// The script in the template that runs a tool by npx, without depending on it.
const NPX_SCRIPT: &str = "build:full";

/// Returns the folder with `venv` and `npm/node_modules`. It is created once, and again when a version changes.
pub(crate) fn provide(project: &Project, progress: &Progress) -> anyhow::Result<PathBuf> {
    let folder = project.target.join(FOLDER);
    let templates = project.root.join(TEMPLATES);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    provide_venv(&folder.join("venv"), &templates, progress)
        .context("the tests want what makes plugins of Python and C")?;
    provide_npm(&folder.join("npm"), &templates, progress)
        .context("the tests want what makes plugins of JavaScript")?;
    if !guests::provide_components(project, progress) {
        bail!("the tests want Rust's wasm32-wasip2: run `rustup target add wasm32-wasip2`, then try again");
    }
    Ok(folder)
}

fn provide_venv(venv: &Path, templates: &Path, progress: &Progress) -> anyhow::Result<()> {
    let read = |template: &&str| fs::read_to_string(templates.join(template).join("requirements.txt"));
    let wanted = PYTHON_TEMPLATES.iter().map(read).collect::<std::io::Result<String>>()?;
    if is_installed(venv, &wanted) {
        return Ok(());
    }
    let shown: Vec<_> = wanted.lines().collect();
    progress.heading(format!("make a Python with {} in target/{FOLDER}/venv", shown.join(" and ")));
    tools::make_venv(progress, venv)?;
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]).args(shown);
    tools::run(&mut pip)?;
    Ok(fs::write(venv.join(INSTALLED), wanted)?)
}

fn provide_npm(npm: &Path, templates: &Path, progress: &Progress) -> anyhow::Result<()> {
    let manifest = fs::read_to_string(templates.join(NPM_TEMPLATE))?;
    let wanted = packages(&manifest).context("cannot read the template's package.json")?;
    npm::provide(npm, &format!("target/{FOLDER}/npm"), &wanted, progress)
}

/// Returns the packages that a project from the template installs, and the one that it runs by npx.
fn packages(manifest: &str) -> Option<Vec<String>> {
    let manifest: serde_json::Value = serde_json::from_str(manifest).ok()?;
    let dependencies = manifest["devDependencies"].as_object()?;
    let mut packages = Vec::new();
    for (name, version) in dependencies {
        packages.push(format!("{name}@{}", version.as_str()?));
    }
    let mut words = manifest["scripts"][NPX_SCRIPT].as_str()?.split_whitespace();
    words.find(|word| *word == "--package")?;
    packages.push(words.next()?.to_owned());
    Some(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npms_packages_are_those_of_the_template() {
        let manifest = r#"{
            "scripts": {"build": "a", "build:full": "npx --yes --package @x/full@~1.2.3 -- full plugin.js"},
            "devDependencies": {"small": "~0.4.5"}
        }"#;
        assert_eq!(packages(manifest).unwrap(), ["small@~0.4.5", "@x/full@~1.2.3"]);
        assert!(packages("{}").is_none());
    }

    #[test]
    fn the_templates_say_what_to_install() {
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(TEMPLATES);
        let manifest = fs::read_to_string(templates.join(NPM_TEMPLATE)).unwrap();
        assert_eq!(packages(&manifest).unwrap().len(), 2);
        for template in PYTHON_TEMPLATES {
            let requirements = fs::read_to_string(templates.join(template).join("requirements.txt")).unwrap();
            assert!(requirements.lines().all(|line| line.contains("~=")), "{requirements}");
        }
    }
}
