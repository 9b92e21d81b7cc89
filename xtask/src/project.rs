//! The project as cargo sees it: its root, its target folder, its packages.
//!
//! Guests are recognized from cargo's metadata, by location and build target, so a new plugin needs no change here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::tools;

/// The workspace from `cargo metadata`.
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
    /// Kind of the dependency; `None` for a normal one.
    kind: Option<String>,
}

impl Project {
    /// Reads the metadata from cargo.
    pub(crate) fn load() -> anyhow::Result<Self> {
        // Use the folder that cargo reports now, or else the one in which xtask was built.
        let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let mut metadata = tools::cargo_in(Path::new(&own));
        metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
        Self::from_metadata(&tools::capture(&mut metadata)?)
    }

    fn from_metadata(metadata: &str) -> anyhow::Result<Self> {
        serde_json::from_str(metadata).context("cannot read what `cargo metadata` printed")
    }

    /// Returns cargo, to run on this project.
    pub(crate) fn cargo(&self) -> Command {
        tools::cargo_in(&self.root)
    }

    /// Returns cargo's folder for programs of the dev profile.
    pub(crate) fn programs(&self) -> PathBuf {
        self.target.join("debug")
    }

    /// Returns cargo's folder for optimised programs.
    pub(crate) fn release_programs(&self) -> PathBuf {
        self.target.join("release")
    }

    /// Returns the plugins that this project ships.
    pub(crate) fn plugins(&self) -> Vec<&Package> {
        self.guests_below("plugins")
    }

    /// Returns the guests that only tests load.
    pub(crate) fn test_guests(&self) -> Vec<&Package> {
        self.guests_below("host/tests/guests")
    }

    /// Returns everything that is built for WebAssembly, and is therefore left out of native builds.
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

    /// Returns the root of each library and program, with the name of its package.
    pub(crate) fn roots(&self) -> impl Iterator<Item = (&str, PathBuf)> {
        let is_ours =
            |target: &&Target| target.kind.iter().any(|kind| matches!(kind.as_str(), "lib" | "bin" | "cdylib"));
        self.packages.iter().flat_map(move |package| {
            package.targets.iter().filter(is_ours).map(|target| (package.name.as_str(), target.src_path.clone()))
        })
    }

    /// Returns the names of the integration tests of all native packages.
    pub(crate) fn test_targets(&self) -> Vec<&str> {
        let targets = self.packages.iter().flat_map(|package| &package.targets);
        targets
            .filter(|target| target.kind.iter().any(|kind| kind == "test"))
            .map(|target| target.name.as_str())
            .collect()
    }

    /// Returns the arguments for `--workspace` without the guests.
    pub(crate) fn without_guests(&self) -> Vec<String> {
        let mut arguments = vec!["--workspace".to_owned()];
        for guest in self.guests() {
            arguments.extend(["--exclude".to_owned(), guest.name.clone()]);
        }
        arguments
    }
}

impl Package {
    /// Returns cargo's name for the module of this guest, or `None` if the package is not a guest.
    pub(crate) fn wasm_file(&self) -> Option<String> {
        // Package names keep their hyphens; rustc names its output after the crate.
        Some(format!("{}.wasm", self.guest_target()?.name.replace('-', "_")))
    }

    /// Returns the toml that a plugin ships with if it cannot work without one.
    pub(crate) fn starter(&self) -> Option<PathBuf> {
        Some(self.manifest_path.with_file_name("starter.toml")).filter(|file| file.is_file())
    }

    fn guest_target(&self) -> Option<&Target> {
        self.targets.iter().find(|target| target.crate_types.iter().any(|kind| kind == "cdylib"))
    }

    /// Returns the packages that this one names as normal dependencies.
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
