//! `plugin new`: creates a project from a template.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use sandbox::is_plugin_name;

use crate::cli::command::say;
use crate::cli::plugin::template::{File, Language};
use crate::exit::WrongArguments;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Plugin name, of a-z, 0-9 and -, beginning with a letter
    name: String,
    /// Programming language
    #[arg(long, value_enum)]
    lang: Language,
    /// Project folder, new or empty [default: NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let name = &arguments.name;
    // Package names in cargo and npm begin with a letter, too.
    if !is_plugin_name(name) || !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        let problem = format!("{name:?} is no name for a plugin: take a letter, then a-z, 0-9 and -, up to 64 of them");
        return Err(WrongArguments(problem).into());
    }
    let folder = arguments.dir.clone().unwrap_or_else(|| PathBuf::from(name));
    let exists = check_folder(&folder)?;
    let files = arguments.lang.project(name)?;
    write(&folder, exists, &files).with_context(|| format!("cannot make the project in {}", folder.display()))?;
    let (shown, steps) = (folder.display(), arguments.lang.steps());
    say!("{shown} is made: next, in there, {steps}");
    Ok(())
}

/// Returns whether the folder exists. One that is not empty is an error.
fn check_folder(folder: &Path) -> anyhow::Result<bool> {
    match fs::read_dir(folder).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(true),
        Ok(false) => {
            let problem = format!("{} is not empty: name another folder with --dir", folder.display());
            Err(WrongArguments(problem).into())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(anyhow!("cannot look into {}: {error}", folder.display())),
    }
}

/// Writes the project completely or not at all: builds it in a temporary folder beside its place and moves it there.
fn write(folder: &Path, exists: bool, files: &[File]) -> anyhow::Result<()> {
    let parent = match folder.parent() {
        _ if exists => folder,
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent)?;
    let staging = tempfile::Builder::new().prefix(".new-").tempdir_in(parent)?;
    let project = staging.path().join("project");
    for (path, content) in files {
        let path = project.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&project))?;
        fs::write(path, content)?;
    }
    if !exists {
        return Ok(fs::rename(&project, folder)?);
    }
    // The folder may be the user's current one, so keep it and move the content only.
    for entry in fs::read_dir(&project)? {
        let entry = entry?;
        fs::rename(entry.path(), folder.join(entry.file_name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str, dir: &Path) -> anyhow::Result<()> {
        run(&Arguments { name: name.to_owned(), lang: Language::Js, dir: Some(dir.to_owned()) })
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    const FILES: [&str; 9] = [
        ".gitignore",
        "README.md",
        "event.json",
        "hello.toml",
        "message.js",
        "message.test.js",
        "package.json",
        "plugin.js",
        "wit",
    ];

    #[test]
    fn a_project_is_made_where_nothing_or_an_empty_folder_was() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b");
        new("hello", &deep).unwrap();
        assert_eq!(names(&deep), FILES);
        assert_eq!(names(&folder.path().join("a")), ["b"], "nothing else is left");
        let empty = folder.path().join("empty");
        fs::create_dir(&empty).unwrap();
        new("hello", &empty).unwrap();
        assert_eq!(names(&empty), FILES);
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        let error = new("hello", folder.path()).unwrap_err();
        assert!(error.is::<WrongArguments>() && error.to_string().contains("is not empty"), "{error}");
        assert_eq!(names(folder.path()), ["mine"]);
        let error = new("hello", &folder.path().join("mine")).unwrap_err();
        assert!(error.to_string().contains("cannot look into"), "{error}");
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = [("a".to_owned(), Vec::new()), ("a/b".to_owned(), Vec::new())];
        assert!(write(&folder.path().join("project"), false, &files).is_err());
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }

    #[test]
    fn a_name_is_one_that_host_cargo_and_npm_take() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["", "Hello", "../evil", "a_b", "a.b", "ä", "1st", "-a", &"a".repeat(65)] {
            let error = new(name, &folder.path().join("project")).unwrap_err();
            assert!(error.is::<WrongArguments>() && error.to_string().contains("is no name"), "{name}: {error}");
        }
        assert_eq!(names(folder.path()), Vec::<String>::new());
    }
}
