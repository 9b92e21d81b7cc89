//! `notify-host config check`: shows every fault at once, each with its line.

use std::fs;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use config::{ConfigFault, HostConfig, Layers, PluginConfig, SourceLocation};
use event::text::{counted, shown};
use serde_json::json;

use crate::cli::command::{say, unless_cut_off, write_json};
use crate::exit;

/// Maximum number of files checked. A folder with more is probably the wrong one.
const FILES_MAX: usize = 10_000;

pub(super) fn run(layers: &Layers, json: bool) -> anyhow::Result<ExitCode> {
    let looked = layers.look();
    for warning in &looked.warnings {
        say!("warning: {warning}");
    }
    let mut faults = looked.problems.0;
    let tomls = tomls(&looked.config);
    for toml in &tomls {
        faults.extend(of_plugin(toml, &looked.config));
    }
    unless_cut_off(print(&faults, json))?;
    let host = looked.file.map_or_else(|| "no file of the host's".to_owned(), |file| file.display().to_string());
    let what = format!("{host}, {}", counted(tomls.len(), "plugin toml"));
    if faults.is_empty() {
        say!("all is well: {what}");
        return Ok(ExitCode::SUCCESS);
    }
    say!("{}: {what}", counted(faults.len(), "fault"));
    Ok(ExitCode::from(exit::BAD_CONFIG))
}

fn tomls(config: &HostConfig) -> Vec<PathBuf> {
    let folder = &config.plugins;
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            say!("warning: cannot read the plugin folder {}: {error}", folder.display());
            return Vec::new();
        }
    };
    let paths = entries.flatten().map(|entry| entry.path()).filter(|path| is_toml(path));
    let mut paths: Vec<_> = paths.take(FILES_MAX).collect();
    paths.sort();
    paths
}

fn is_toml(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && path.extension().is_some_and(|extension| extension == "toml")
}

fn of_plugin(toml: &Path, host: &HostConfig) -> Vec<ConfigFault> {
    match PluginConfig::text(toml) {
        Ok(text) => PluginConfig::faults_or(toml, &text.unwrap_or_default(), &host.policies)
            .err()
            .map_or_else(Vec::new, |problems| problems.0),
        Err(problem) => vec![ConfigFault::of_file(toml.to_owned(), problem.to_string())],
    }
}

fn print(faults: &[ConfigFault], json: bool) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        for fault in faults {
            write_json(&mut out, &as_json(fault))?;
        }
        return out.flush();
    }
    let is_coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let renderer = if is_coloured { Renderer::styled() } else { Renderer::plain() };
    for fault in faults {
        write_fault(&mut out, fault, &renderer)?;
    }
    out.flush()
}

fn as_json(fault: &ConfigFault) -> serde_json::Value {
    let (file, line, column, set_by) = match &fault.place {
        SourceLocation::File { file, line, column } => (Some(file), Some(line), Some(column), None),
        SourceLocation::Whole(file) => (Some(file), None, None, None),
        SourceLocation::Override(name) => (None, None, None, Some(name)),
    };
    json!({
        "file": file,
        "line": line,
        "column": column,
        "set_by": set_by,
        "problem": fault.problem,
        "suggestion": fault.suggestion,
    })
}

/// Writes a fault with its line, and a mark below the faulty part.
fn write_fault(out: &mut impl Write, fault: &ConfigFault, renderer: &Renderer) -> io::Result<()> {
    let problem = match &fault.place {
        SourceLocation::Override(name) => format!("{name}: {}", shown(&fault.problem)),
        SourceLocation::File { .. } | SourceLocation::Whole(_) => shown(&fault.problem),
    };
    let mut group = Group::with_title(Level::ERROR.primary_title(problem));
    if let (SourceLocation::File { file, line, .. }, Some(excerpt)) = (&fault.place, &fault.excerpt) {
        let snippet = Snippet::source(excerpt.line.as_str()).path(file.display().to_string()).line_start(*line);
        group = group.element(snippet.annotation(AnnotationKind::Primary.span(excerpt.at.clone())));
    }
    if let Some(suggestion) = &fault.suggestion {
        group = group.element(Level::HELP.message(shown(suggestion)));
    }
    writeln!(out, "{}\n", renderer.render(&[group]))
}

#[cfg(test)]
mod tests {
    use config::Policies;

    use super::*;

    #[test]
    fn a_fault_is_shown_with_its_line_and_a_mark_below_it() {
        let text = "enabled = true\n[limits]\nmemroy = \"5 MiB\"\ntime = 5\n";
        let faults = PluginConfig::faults_or(Path::new("plugins/a.toml"), text, &Policies::default()).unwrap_err().0;
        let mut out = Vec::new();
        for fault in &faults {
            write_fault(&mut out, fault, &Renderer::plain()).unwrap();
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "error: unknown key \"limits.memroy\"\n --> plugins/a.toml:3:1\n  |\n3 | memroy = ***\n  | ^^^^^^\n  |\n  \
             = help: did you mean \"memory\"?\n\nerror: limits.time: expected a text in quotes, got a number\n \
             --> plugins/a.toml:4:8\n  |\n4 | time = 5\n  |        ^\n\n"
        );
    }
}
