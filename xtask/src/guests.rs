//! Builds guests: plugins, and the modules that the host's tests load.
//!
//! It compiles them for WebAssembly with any available compiler, and places them in folders below target/. A file is
//! replaced atomically, and only if it has changed. No file is removed and no toml replaced: the folder may hold a
//! plugin that somebody dropped in or configured.

use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::project::{Package, Project};
use crate::tools::{self, Installer, Progress};

/// The folder of plugins, below target/.
pub(crate) const PLUGINS: &str = "plugins";
/// The folder of the same plugins as core modules.
pub(crate) const PLUGINS_CORE: &str = "plugins-core";
/// The folder of the tests' own guests.
pub(crate) const GUESTS: &str = "guests";

/// The profile in Cargo.toml that guests are built with.
const PROFILE: &str = "guest";

/// The guests to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The plugins, for running the host.
    Plugins,
    /// The plugins in both forms, and the guests of the tests.
    Everything,
}

/// The compiler to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Choice {
    /// The first available one
    Auto,
    /// Rust's own
    Rust,
    /// Debian's rustc-web
    Debian,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Platform {
    /// Its compiler writes components.
    WasiP2,
    /// Its compiler writes core modules.
    Unknown,
}

impl Platform {
    fn name(self) -> &'static str {
        match self {
            Self::WasiP2 => "wasm32-wasip2",
            Self::Unknown => "wasm32-unknown-unknown",
        }
    }
}

/// An available compiler.
#[derive(Clone, Debug)]
enum Compiler {
    Rust(Platform),
    /// Debian's, with its own cargo. It has no linker for WebAssembly, so it borrows one.
    Debian {
        linker: PathBuf,
    },
}

/// Builds guests into their folders below target/.
pub(crate) fn build(project: &Project, progress: &Progress, wanted: Wanted, choice: Choice) -> anyhow::Result<()> {
    let plugins = project.plugins();
    let test_guests = project.test_guests();
    let compiler = Compiler::find(project, progress, Platform::WasiP2, choice)?;
    match wanted {
        Wanted::Plugins => {
            let modules = compiler.build(project, progress, &plugins)?;
            lay_out(project, progress, &modules, &plugins, PLUGINS)
        }
        Wanted::Everything => {
            let modules = compiler.build(project, progress, &project.guests())?;
            lay_out(project, progress, &modules, &plugins, PLUGINS)?;
            lay_out(project, progress, &modules, &test_guests, GUESTS)?;
            let core = Compiler::find(project, progress, Platform::Unknown, choice)?;
            let modules = core.build(project, progress, &plugins)?;
            lay_out(project, progress, &modules, &plugins, PLUGINS_CORE)
        }
    }
}

/// Returns the platform for which clippy can check the guests, if our own compiler has one.
pub(crate) fn platform_for_lints(project: &Project) -> Option<&'static str> {
    [Platform::WasiP2, Platform::Unknown]
        .into_iter()
        .find(|platform| has_standard_library(project, *platform))
        .map(Platform::name)
}

/// Returns whether the toolchain of plugin authors can build components. Asks rustup to add the target if not.
pub(crate) fn provide_components(project: &Project, progress: &Progress) -> bool {
    has_standard_library(project, Platform::WasiP2) || add_by_rustup(project, progress, Platform::WasiP2)
}

impl Compiler {
    /// Returns the first available compiler for the platform `best`, or else for core modules, which the host turns
    /// into components while loading.
    fn find(project: &Project, progress: &Progress, best: Platform, choice: Choice) -> anyhow::Result<Self> {
        if choice != Choice::Debian {
            for platform in [best, Platform::Unknown] {
                if has_standard_library(project, platform) || add_by_rustup(project, progress, platform) {
                    return Ok(Self::Rust(platform));
                }
            }
        }
        if choice != Choice::Rust {
            if let Some(compiler) = Self::debian(project) {
                return Ok(compiler);
            }
            // A compiler is too large to install on a user's machine without asking. A root user, as in a container or
            // on a build machine, has agreed implicitly.
            if Installer::find() == Some(Installer::Root) {
                progress.heading("apt-get install rustc-web cargo-web rust-web-src lld");
                match Installer::Root.install(&["rustc-web", "cargo-web", "rust-web-src", "lld"]) {
                    Ok(()) => {
                        if let Some(compiler) = Self::debian(project) {
                            return Ok(compiler);
                        }
                    }
                    // The error below says how to fix it.
                    Err(error) => eprintln!("xtask: {error:#}"),
                }
            }
        }
        bail!(
            "no compiler for WebAssembly: run `rustup target add {}`, or on Debian \
             `apt-get install rustc-web cargo-web rust-web-src lld`, then try again",
            best.name()
        )
    }

    fn debian(project: &Project) -> Option<Self> {
        let has_sources = fs::read_dir("/usr/src").ok()?.flatten().any(|entry| {
            entry.file_name().to_string_lossy().starts_with("rustc-") && entry.path().join("library/std").is_dir()
        });
        let is_there = has_sources && Path::new("/usr/bin/rustc").is_file() && Path::new("/usr/bin/cargo").is_file();
        if !is_there {
            return None;
        }
        Some(Self::Debian { linker: linker(project)? })
    }

    fn platform(&self) -> Platform {
        match self {
            Self::Rust(platform) => *platform,
            Self::Debian { .. } => Platform::Unknown,
        }
    }

    /// Compiles the guests, and returns cargo's output folder.
    fn build(&self, project: &Project, progress: &Progress, guests: &[&Package]) -> anyhow::Result<PathBuf> {
        let platform = self.platform().name();
        let modules = project.target.join(platform).join(PROFILE);
        if guests.is_empty() {
            return Ok(modules);
        }
        let names: Vec<&str> = guests.iter().map(|guest| &*guest.name).collect();
        let by = match self {
            Self::Rust(_) => "",
            Self::Debian { .. } => " with Debian's compiler",
        };
        progress.heading(format!("build for {platform}{by}: {}", names.join(", ")));
        let mut cargo = match self {
            Self::Rust(_) => project.cargo(),
            Self::Debian { linker } => debian_cargo(project, linker),
        };
        cargo.args(["build", "--profile", PROFILE, "--target", platform]);
        for name in names {
            cargo.args(["--package", name]);
        }
        if progress.quiet {
            cargo.arg("--quiet");
        }
        tools::run(&mut cargo)?;
        Ok(modules)
    }
}

fn debian_cargo(project: &Project, linker: &Path) -> Command {
    let mut cargo = Command::new("/usr/bin/cargo");
    cargo.current_dir(&project.root);
    // Keep the settings of our own toolchain away from this one.
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "LD_LIBRARY_PATH"] {
        cargo.env_remove(name);
    }
    cargo
        .env("RUSTC", "/usr/bin/rustc")
        // Building the standard library is unstable, but this compiler comes without one for WebAssembly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
        .arg("-Zbuild-std=std,panic_abort");
    cargo
}

fn rustc(project: &Project) -> Command {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc")));
    rustc.current_dir(&project.root);
    rustc
}

/// Asks rustc rather than rustup, because a standard library can also be installed in other ways.
fn has_standard_library(project: &Project, platform: Platform) -> bool {
    let folder = tools::capture(rustc(project).args(["--print", "target-libdir", "--target", platform.name()]));
    let Ok(entries) = folder.and_then(|folder| Ok(fs::read_dir(folder.trim())?)) else {
        return false;
    };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

fn add_by_rustup(project: &Project, progress: &Progress, platform: Platform) -> bool {
    if tools::find_program("rustup").is_none() {
        return false;
    }
    progress.heading(format!("rustup target add {}", platform.name()));
    let mut rustup = Command::new("rustup");
    rustup.current_dir(&project.root).args(["target", "add", platform.name()]);
    // This may fail, e.g. offline. The check of rustc's own library decides.
    tools::run(&mut rustup).is_ok() && has_standard_library(project, platform)
}

/// Returns a linker for WebAssembly: the one in Rust's toolchain, or LLVM's.
fn linker(project: &Project) -> Option<PathBuf> {
    let own = tools::capture(rustc(project).args(["--print", "target-libdir"])).ok().and_then(|folder| {
        let linker = Path::new(folder.trim()).parent()?.join("bin/rust-lld");
        linker.is_file().then_some(linker)
    });
    own.or_else(|| tools::find_program("wasm-ld"))
}

fn lay_out(
    project: &Project,
    progress: &Progress,
    modules: &Path,
    guests: &[&Package],
    folder: &str,
) -> anyhow::Result<()> {
    let folder = project.target.join(folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for guest in guests {
        let Some(module) = guest.wasm_file() else { continue };
        let to = folder.join(format!("{}.wasm", guest.name));
        // Write the toml first: a host that watches the folder must not load the plugin as enabled.
        let toml = to.with_extension("toml");
        if let Some(starter) = guest.starter().filter(|_| !toml.exists()) {
            replace(&starter, &toml)?;
        }
        let changed = replace(&modules.join(module), &to)?;
        let shown = to.strip_prefix(&project.root).unwrap_or(&to);
        progress.heading(format!("{} {}", shown.display(), if changed { "is new" } else { "has not changed" }));
    }
    Ok(())
}

/// Replaces `to` by a copy of `from`, atomically. Returns whether the content changed.
pub(crate) fn replace(from: &Path, to: &Path) -> anyhow::Result<bool> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == content) {
        return Ok(false);
    }
    let write = || -> std::io::Result<()> {
        let folder = to.parent().unwrap_or(Path::new("."));
        // A host that watches the folder must not take the temporary file for a plugin.
        let mut file = tempfile::Builder::new()
            .prefix(".new-")
            .suffix(".part")
            .permissions(fs::Permissions::from_mode(0o644))
            .tempfile_in(folder)?;
        file.write_all(&content)?;
        file.persist(to)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_if_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a_b.wasm"), folder.path().join("a-b.wasm"));
        fs::write(&from, "one").unwrap();
        assert!(replace(&from, &to).unwrap());
        assert!(!replace(&from, &to).unwrap());
        fs::write(&from, "two").unwrap();
        assert!(replace(&from, &to).unwrap());
        assert_eq!(fs::read(&to).unwrap(), b"two");
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_module_that_is_not_there_is_an_error_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let error = replace(&folder.path().join("gone.wasm"), &folder.path().join("to.wasm")).unwrap_err();
        assert!(error.to_string().contains("gone.wasm"), "{error}");
    }
}
