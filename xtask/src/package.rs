//! Builds the Debian package: lays out the files as they are installed, and packs them with Debian's own dpkg-deb.
//!
//! The sources are in `packaging/`. This module only determines where each file goes.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::guests::{self, Choice, PLUGINS, Wanted};
use crate::project::Project;
use crate::tools::{self, Installer, Progress};

/// The folder below target/.
const FOLDER: &str = "package";
const NAME: &str = "notify-host";
const PROGRAMS: [&str; 2] = [NAME, "order-cli"];
/// Shells, each with its completion folder and the prefix and suffix of its completion files.
const SHELLS: [(&str, &str, &str, &str); 3] = [
    ("bash", "usr/share/bash-completion/completions", "", ""),
    ("zsh", "usr/share/zsh/vendor-completions", "_", ""),
    ("fish", "usr/share/fish/vendor_completions.d", "", ".fish"),
];
/// Folder of files that the operator may change. dpkg asks before an upgrade replaces them.
const CONFIGURATION: &str = "etc/notify-host";
const PLUGINS_INSTALLED: &str = "usr/share/notify-host/plugins";
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const DOCUMENTS: [&str; 6] = [
    "docs/operating.md",
    "docs/mail.md",
    "docs/pacing.md",
    "docs/sandbox.md",
    "docs/tracing.md",
    "docs/writing-a-plugin.md",
];
const EXAMPLES: [&str; 3] =
    ["packaging/prometheus/alerts.yml", "packaging/prometheus/prometheus.yml", "packaging/grafana/notify-host.json"];

/// Builds the package, and returns its path. Unoptimised programs are for tests.
pub(crate) fn deb(project: &Project, progress: &Progress, unoptimised: bool) -> anyhow::Result<PathBuf> {
    for (program, package) in [("dpkg-deb", "dpkg"), ("dpkg-shlibdeps", "dpkg-dev"), ("strip", "binutils")] {
        if tools::find_program(program).is_none() {
            let Some(installer) = Installer::find() else {
                bail!("there is no {program}: run `sudo apt-get install {package}`, then try again");
            };
            progress.heading(format!("apt-get install {package}"));
            installer.install(&[package])?;
        }
    }
    guests::build(project, progress, Wanted::Plugins, Choice::Auto)?;
    progress.heading("build the programs");
    let mut build = project.cargo();
    build.args(["build", "--locked"]).args(PROGRAMS.map(|program| format!("--package={program}")));
    if !unoptimised {
        build.arg("--release");
    }
    tools::run(&mut build)?;
    let programs = if unoptimised { project.programs() } else { project.release_programs() };

    progress.heading("lay out and pack");
    let folder = project.target.join(FOLDER);
    let root = Root(folder.join("root"));
    if root.0.exists() {
        fs::remove_dir_all(&root.0).with_context(|| format!("cannot remove {}", root.0.display()))?;
    }
    lay_out(project, &programs, &root)?;
    let architecture = tools::capture(Command::new("dpkg").arg("--print-architecture"))?.trim().to_owned();
    let version = env!("CARGO_PKG_VERSION");
    describe(project, &root, &architecture, version)?;
    let package = folder.join(format!("{NAME}_{version}_{architecture}.deb"));
    let mut pack = Command::new("dpkg-deb");
    // Compress a release well for download; a package for tests need not be small.
    pack.args(["--root-owner-group", if unoptimised { "-Zgzip" } else { "-Zxz" }]);
    if unoptimised {
        pack.arg("-z1");
    }
    tools::run(pack.arg("--build").arg(&root.0).arg(&package).stdout(Stdio::null()))?;
    Ok(package)
}

/// The folder that stands for `/`.
struct Root(PathBuf);

impl Root {
    fn write(&self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(path);
        self.folder(path.parent().unwrap_or(&self.0))?;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&path)
            .with_context(|| format!("cannot write {}", path.display()))?;
        file.write_all(content)?;
        // Set the mode regardless of the umask.
        Ok(file.set_permissions(fs::Permissions::from_mode(mode))?)
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> anyhow::Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.write(to, mode, &content)
    }

    fn folder(&self, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for part in folder.ancestors().take_while(|part| part.starts_with(&self.0)) {
            fs::set_permissions(part, fs::Permissions::from_mode(0o755))?;
        }
        Ok(())
    }
}

fn lay_out(project: &Project, programs: &Path, root: &Root) -> anyhow::Result<()> {
    for program in PROGRAMS {
        let built = programs.join(program);
        let installed = format!("usr/bin/{program}");
        root.copy(&built, &installed, 0o755)?;
        tools::run(Command::new("strip").arg("--strip-unneeded").arg(root.0.join(installed)))?;
        for (shell, folder, before, after) in SHELLS {
            let script = tools::capture(Command::new(&built).args(["completions", shell]))?;
            root.write(&format!("{folder}/{before}{program}{after}"), 0o644, script.as_bytes())?;
        }
        let pages = root.0.join("usr/share/man/man1");
        root.folder(&pages)?;
        tools::run(Command::new(&built).arg("man").arg(&pages))?;
    }
    for page in files(&root.0.join("usr/share/man/man1"))? {
        compress(&page)?;
    }
    for file in files(&project.target.join(PLUGINS))? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file.extension().is_some_and(|extension| extension == "wasm") {
            root.copy(&file, &format!("{PLUGINS_INSTALLED}/{name}"), 0o644)?;
        }
    }
    for plugin in project.plugins() {
        if let Some(starter) = plugin.starter() {
            root.copy(&starter, &format!("{CONFIGURATION}/plugins/{}.toml", plugin.name), 0o644)?;
        }
    }
    let debian = project.root.join("packaging/debian");
    let example = tools::capture(Command::new(programs.join(NAME)).args(["config", "example"]))?;
    let settings = settings(&example, &fs::read_to_string(debian.join("notify-host.toml"))?)?;
    root.write(&format!("{CONFIGURATION}/notify-host.toml"), 0o644, settings.as_bytes())?;
    root.copy(
        &project.root.join("packaging/systemd/notify-host.service"),
        "lib/systemd/system/notify-host.service",
        0o644,
    )?;
    let documents = format!("usr/share/doc/{NAME}");
    for document in DOCUMENTS {
        root.copy(&project.root.join(document), &format!("{documents}/{}", name_of(document)), 0o644)?;
    }
    for example in EXAMPLES {
        root.copy(&project.root.join(example), &format!("{documents}/examples/{}", name_of(example)), 0o644)?;
    }
    let mut copyright = fs::read_to_string(debian.join("copyright"))?;
    for line in fs::read_to_string(project.root.join("LICENSE-MIT"))?.lines() {
        copyright.extend([" ", if line.is_empty() { "." } else { line }, "\n"]);
    }
    root.write(&format!("{documents}/copyright"), 0o644, copyright.as_bytes())?;
    let changes = format!("{documents}/changelog.gz");
    root.copy(&debian.join("changelog"), changes.trim_end_matches(".gz"), 0o644)?;
    compress(&root.0.join(changes.trim_end_matches(".gz")))?;
    root.copy(&debian.join("lintian-overrides"), &format!("usr/share/lintian/overrides/{NAME}"), 0o644)
}

/// Returns the host's own example settings, changed for the package: comments go to its head, and values replace
/// those of their keys.
fn settings(example: &str, package: &str) -> anyhow::Result<String> {
    let mut settings = example.to_owned();
    let mut head = String::new();
    for line in package.lines() {
        let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) else {
            head.extend([line, "\n"]);
            continue;
        };
        let absent = format!("\n#{key} = ");
        let at = settings.find(&absent).with_context(|| format!("`config example` has no {key}"))? + 1;
        let end = settings[at..].find('\n').map_or(settings.len(), |length| at + length);
        settings.replace_range(at..end, line);
    }
    Ok(head + &settings)
}

/// Writes dpkg's control files: the description, the scripts, and the list of configuration files.
fn describe(project: &Project, root: &Root, architecture: &str, version: &str) -> anyhow::Result<()> {
    let debian = project.root.join("packaging/debian");
    let depends = libraries(root)?;
    let installed = installed_size(&root.0)?;
    let control = fs::read_to_string(debian.join("control"))?
        .replace("${version}", version)
        .replace("${architecture}", architecture)
        .replace("${depends}", &depends)
        .replace("${installed-size}", &installed.to_string());
    let mut configuration = Vec::new();
    let mut sums = String::new();
    for file in all_files(&root.0)? {
        let path = file.strip_prefix(&root.0)?.display().to_string();
        if path.starts_with(CONFIGURATION) {
            configuration.push(format!("/{path}\n"));
        } else {
            let sum = tools::capture(Command::new("md5sum").arg(&file))?;
            sums.extend([sum.split_whitespace().next().unwrap_or_default(), "  ", &path, "\n"]);
        }
    }
    root.write("DEBIAN/control", 0o644, control.as_bytes())?;
    root.write("DEBIAN/conffiles", 0o644, configuration.concat().as_bytes())?;
    root.write("DEBIAN/md5sums", 0o644, sums.as_bytes())?;
    for script in SCRIPTS {
        root.copy(&debian.join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    Ok(())
}

/// Returns the packages of the linked libraries, as found by Debian's own tool.
fn libraries(root: &Root) -> anyhow::Result<String> {
    // The tool must run in the folder of a source package.
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join("debian"))?;
    fs::write(folder.path().join("debian/control"), format!("Source: {NAME}\n\nPackage: {NAME}\nArchitecture: any\n"))?;
    let mut ask = Command::new("dpkg-shlibdeps");
    ask.current_dir(folder.path()).arg("-O");
    for program in PROGRAMS {
        ask.arg(root.0.join("usr/bin").join(program));
    }
    let said = tools::capture(&mut ask)?;
    let depends = said.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
    depends.map(str::to_owned).with_context(|| format!("dpkg-shlibdeps names no libraries: {said}"))
}

/// Returns the size in KiB, as Debian counts it.
fn installed_size(root: &Path) -> anyhow::Result<u64> {
    let mut kib = 0;
    for file in all_files(root)? {
        kib += fs::metadata(file)?.len().div_ceil(1024);
    }
    Ok(kib)
}

/// Compresses a file in place, reproducibly: without a name or time.
fn compress(file: &Path) -> anyhow::Result<()> {
    tools::run(Command::new("gzip").args(["--best", "--no-name", "--force"]).arg(file))
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn all_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for path in files(folder)? {
        if path.is_dir() {
            all.extend(all_files(&path)?);
        } else {
            all.push(path);
        }
    }
    Ok(all)
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_has_its_own_values_in_their_places() {
        let example = "# Where\n#broker = \"amqp://x\"\n\n# Which\n#plugins = \"plugins\"\n";
        let package = "# Everyone may read this.\n\nbroker = \"sqlite:q\"\n";
        let expected =
            "# Everyone may read this.\n\n# Where\nbroker = \"sqlite:q\"\n\n# Which\n#plugins = \"plugins\"\n";
        assert_eq!(settings(example, package).unwrap(), expected);
        assert!(settings(example, "brokers = 1\n").unwrap_err().to_string().contains("no brokers"));
    }
}
