//! Plugins in other languages: projects of `notify-host plugin new`, built as their READMEs say,
//! with tools that `cargo xtask test` has installed in one folder.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Environment variable with the folder of the tools.
pub const VARIABLE: &str = "NOTIFY_TEST_LANGUAGES";

/// A language, with its toolchain, for writing a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Plain cargo, for wasm32-wasip2.
    Rust,
    /// Zig's compiler; builds a core module.
    C,
    /// JavaScript on `QuickJS`.
    JavaScript,
    /// JavaScript on `StarlingMonkey`.
    JavaScriptFull,
    /// Python, with all of `CPython`.
    Python,
}

impl Language {
    /// All languages, smallest plugin first.
    pub const ALL: [Self; 5] = [Self::Rust, Self::C, Self::JavaScript, Self::JavaScriptFull, Self::Python];

    /// Returns the name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::C => "C",
            Self::JavaScript => "JavaScript, QuickJS",
            Self::JavaScriptFull => "JavaScript, StarlingMonkey",
            Self::Python => "Python",
        }
    }

    /// Returns the value for `plugin new --lang`.
    pub fn option(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::JavaScript | Self::JavaScriptFull => "js",
            Self::Python => "python",
        }
    }

    /// Returns the command that builds the project, and the path of the built plugin.
    fn build(self, name: &str) -> (String, PathBuf) {
        let wasm = PathBuf::from(format!("{name}.wasm"));
        match self {
            Self::Rust => {
                let wasm = format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_"));
                ("cargo build --quiet --target wasm32-wasip2 --release".to_owned(), wasm.into())
            }
            Self::C => ("make --silent".to_owned(), wasm),
            Self::JavaScript => ("npm run --silent build".to_owned(), wasm),
            Self::JavaScriptFull => ("npm run --silent build:full".to_owned(), wasm),
            Self::Python => {
                let command =
                    ".venv/bin/componentize-py --quiet --wit-path wit --world plugin componentize app --output";
                (format!("{command} {name}.wasm"), wasm)
            }
        }
    }
}

/// The folder of the tools.
#[derive(Clone, Debug)]
pub struct Tools(PathBuf);

impl Tools {
    /// Uses the tools in this folder.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self(folder.into())
    }

    /// Returns what a project contains after its README's installation steps, and where each of
    /// them is here.
    pub fn installed(&self) -> [(&'static str, PathBuf); 3] {
        [
            (".venv", self.0.join("venv")),
            ("node_modules", self.0.join("npm/node_modules")),
            // Shared between projects, so that unchanged dependencies are built once.
            ("target", self.0.join("cargo")),
        ]
    }

    /// Returns the environment for commands in a project: variables to set, and variables to remove.
    pub fn environment(&self) -> ([(&'static str, PathBuf); 1], [&'static str; 2]) {
        ([("ZIG_GLOBAL_CACHE_DIR", self.0.join("zig"))], ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"])
    }

    /// Creates a project in `folder` with the host's program, and builds it. Returns the path of the plugin.
    ///
    /// # Errors
    ///
    /// Returns the output of the command that failed.
    pub fn make(&self, host: &Path, language: Language, name: &str, folder: &Path) -> Result<PathBuf, String> {
        let project = new_project(host, language, name, folder)?;
        self.build(language, name, &project)
    }

    /// Builds a project. Returns the path of the plugin.
    ///
    /// # Errors
    ///
    /// Returns the output of the command that failed.
    pub fn build(&self, language: Language, name: &str, project: &Path) -> Result<PathBuf, String> {
        for (link, target) in self.installed() {
            let made = fs::create_dir_all(&target).and_then(|()| symlink(target, project.join(link)));
            if let Err(error) = made
                && error.kind() != std::io::ErrorKind::AlreadyExists
            {
                return Err(format!("cannot make {link}: {error}"));
            }
        }
        let (line, wasm) = language.build(name);
        let mut build = Command::new("sh");
        build.current_dir(project).args(["-c", &line]);
        let (set, unset) = self.environment();
        build.envs(set);
        for variable in unset {
            build.env_remove(variable);
        }
        // Projects of the same name share entries in Zig's cache, so they must not be built at the same time.
        let _alone = (language == Language::C).then(|| ZIG.lock().unwrap_or_else(PoisonError::into_inner));
        run(build)?;
        Ok(project.join(wasm))
    }
}

static ZIG: Mutex<()> = Mutex::new(());

/// Creates a project in `folder` with the host's program. Returns its path.
///
/// # Errors
///
/// Returns the output of the host.
pub fn new_project(host: &Path, language: Language, name: &str, folder: &Path) -> Result<PathBuf, String> {
    let mut new = Command::new(host);
    new.current_dir(folder).args(["plugin", "new", name, "--lang", language.option()]);
    run(new)?;
    Ok(folder.join(name))
}

fn run(mut command: Command) -> Result<(), String> {
    let line: Vec<OsString> = command.get_args().map(ToOwned::to_owned).collect();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot start {line:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{line:?} failed ({}):\n{}", output.status, String::from_utf8_lossy(&said)))
}
