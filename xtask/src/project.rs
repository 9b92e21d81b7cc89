//! The project as cargo sees it: its root, its target folder, its packages.
//!
//! Which packages are guests is read from cargo, by where they lie and what they build, so a
//! new plugin needs no line here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::tools;

/// What `cargo metadata` says of the workspace.
#[derive(Debug, Deserialize)]
pub(crate) struct Project {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, Debug, Deserialize)]
struct Target {
    name: String,
    crate_types: Vec<String>,
    kind: Vec<String>,
    src_path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None` is a normal one.
    kind: Option<String>,
}

impl Project {
    /// Asks cargo.
    pub(crate) fn load() -> anyhow::Result<Self> {
        // The folder in which xtask was built, unless cargo, which runs it, says where that is now.
        let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let mut metadata = tools::cargo_in(Path::new(&own));
        metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
        Self::from_metadata(&tools::capture(&mut metadata)?)
    }

    fn from_metadata(metadata: &str) -> anyhow::Result<Self> {
        serde_json::from_str(metadata).context("cannot read what `cargo metadata` printed")
    }

    /// Cargo, at work on this project.
    pub(crate) fn cargo(&self) -> Command {
        tools::cargo_in(&self.root)
    }

    /// Where cargo puts the programs of the dev profile.
    pub(crate) fn programs(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// Where cargo puts those that are optimised.
    pub(crate) fn release_programs(&self) -> PathBuf {
        self.target.join("release")
    }

    /// The plugins that this project ships.
    pub(crate) fn plugins(&self) -> Vec<&Package> {
        self.guests_below("plugins")
    }

    /// The guests that only tests load.
    pub(crate) fn test_guests(&self) -> Vec<&Package> {
        self.guests_below("host/tests/guests")
    }

    /// All that is built for WebAssembly, and so left out of what is built for this machine.
    pub(crate) fn guests(&self) -> Vec<&Package> {
        [self.plugins(), self.test_guests()].concat()
    }

    fn guests_below(&self, folder: &str) -> Vec<&Package> {
        let folder = self.root.join(folder);
        let mut guests: Vec<&Package> = self
            .packages
            .iter()
            .filter(|package| package.manifest_path.starts_with(&folder) && package.guest_target().is_some())
            .collect();
        guests.sort_by(|a, b| a.name.cmp(&b.name));
        guests
    }

    /// The root of each library and program, with the name of its package.
    pub(crate) fn roots(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        let is_ours =
            |target: &&Target| target.kind.iter().any(|kind| matches!(kind.as_str(), "lib" | "bin" | "cdylib"));
        self.packages.iter().flat_map(move |package| {
            package.targets.iter().filter(is_ours).map(|target| (package.name.as_str(), target.src_path.clone()))
        })
    }

    /// The names of the integration tests of all packages that are built for this machine.
    pub(crate) fn test_targets(&self) -> Vec<&str> {
        let targets = self.packages.iter().flat_map(|package| &package.targets);
        targets
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
            .map(|target| target.name.as_str())
            .collect()
    }

    /// `--workspace`, less the guests.
    pub(crate) fn without_guests(&self) -> Vec<String> {
        let mut arguments = vec!["--workspace".to_owned()];
        for guest in self.guests() {
            arguments.extend(["--exclude".to_owned(), guest.name.clone()]);
        }
        arguments
    }
}

impl Package {
    /// What cargo calls the module that this guest compiles to. `None`: it is no guest.
    pub(crate) fn wasm_file(&self) -> Option<String> {
        // Packages keep their hyphens; what rustc writes is named after the crate.
        Some(format!("{}.wasm", self.guest_target()?.name.replace('-', "_")))
    }

    /// The toml that it begins with, where it cannot do its work without one.
    pub(crate) fn starter(&self) -> Option<PathBuf> {
        Some(self.manifest_path.with_file_name("starter.toml")).filter(|file| file.is_file())
    }

    fn guest_target(&self) -> Option<&Target> {
        self.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
    }

    /// The packages that this one names as normal dependencies.
    pub(crate) fn normal_dependencies(&self) -> impl Iterator<Item = &str> {
        self.dependencies.iter().filter(|dependency| dependency.kind.is_none()).map(|dependency| &*dependency.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Project {
        Project::from_metadata(
            r#"{
                "workspace_root": "/p", "target_directory": "/p/target",
                "packages": [
                    {"name": "broker", "manifest_path": "/p/broker/Cargo.toml", "dependencies": [
                        {"name": "lapin", "kind": null}, {"name": "testbed", "kind": "dev"}],
                     "targets": [{"name": "broker", "kind": ["lib"], "crate_types": ["lib"], "src_path": "/p/lib.rs"}]},
                    {"name": "web-hook", "manifest_path": "/p/plugins/web-hook/Cargo.toml", "dependencies": [],
                     "targets": [{"name": "web_hook", "kind": ["cdylib"], "crate_types": ["cdylib"], "src_path": "/p/lib.rs"}]},
                    {"name": "notify-plugin", "manifest_path": "/p/plugins/sdk/Cargo.toml", "dependencies": [],
                     "targets": [{"name": "notify_plugin", "kind": ["lib"], "crate_types": ["lib"], "src_path": "/p/lib.rs"}]},
                    {"name": "looping", "manifest_path": "/p/host/tests/guests/looping/Cargo.toml", "dependencies": [],
                     "targets": [{"name": "looping", "kind": ["cdylib", "rlib"], "crate_types": ["cdylib", "rlib"], "src_path": "/p/lib.rs"}]}
                ]
            }"#,
        )
        .unwrap()
    }

    fn names(packages: &[&Package]) -> Vec<String> {
        packages.iter().map(|package| package.name.clone()).collect()
    }

    #[test]
    fn guests_are_found_by_their_folder_and_what_they_build() {
        let project = sample();
        assert_eq!(names(&project.plugins()), ["web-hook"]);
        assert_eq!(names(&project.test_guests()), ["looping"]);
        assert_eq!(project.without_guests(), ["--workspace", "--exclude", "web-hook", "--exclude", "looping"]);
    }

    #[test]
    fn a_guests_module_is_named_after_its_crate() {
        let project = sample();
        assert_eq!(project.plugins()[0].wasm_file().as_deref(), Some("web_hook.wasm"));
        assert_eq!(project.packages[0].wasm_file(), None);
    }

    #[test]
    fn dev_dependencies_are_no_normal_ones() {
        assert_eq!(sample().packages[0].normal_dependencies().collect::<Vec<_>>(), ["lapin"]);
    }
}
