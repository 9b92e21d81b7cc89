//! `notify-host config show`: shows the effective settings, and where each comes from.

use std::io::{self, Write};
use std::process::ExitCode;

use config::BadConfig;
use config::{Effective, Layers, Resolved, SourceLocation, ValueSource, default_files};
use event::text::printable;
use serde_json::json;

use crate::cli::command::{say, unless_cut_off, write_json};

/// Width of the value column, so that the sources line up where possible.
const WIDTH: usize = 44;

pub(super) fn run(layers: &Layers, json: bool) -> anyhow::Result<ExitCode> {
    let resolved = layers.resolve().map_err(|problems| BadConfig(problems.into()))?;
    for warning in &resolved.warnings {
        say!("warning: {warning}");
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let effective = resolved.effective();
    let printed = if json { print_json(&mut out, &effective) } else { print(&mut out, &resolved, &effective) };
    unless_cut_off(printed.and_then(|()| out.flush()))?;
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, resolved: &Resolved, effective: &[Effective]) -> io::Result<()> {
    if let Some(file) = &resolved.file {
        writeln!(out, "# the file is {}", printable(&file.display().to_string()))?;
    } else {
        let looked: Vec<_> = default_files().iter().map(|file| printable(&file.display().to_string())).collect();
        writeln!(out, "# there is no file; it would be {}", looked.join(" or "))?;
    }
    let mut table = "";
    for one in effective {
        let (within, key) = one.path.rsplit_once('.').unwrap_or(("", &one.path));
        if within != table {
            writeln!(out, "\n[{within}]")?;
            table = within;
        }
        match &one.value {
            Ok(value) => {
                let line = format!("{key} = {}", printable(value));
                writeln!(out, "{line:WIDTH$} # {}", printable(&one.source.to_string()))?;
            }
            Err(otherwise) => writeln!(out, "# {key} is not set: {otherwise}")?,
        }
    }
    Ok(())
}

fn print_json(out: &mut impl Write, effective: &[Effective]) -> io::Result<()> {
    for one in effective {
        let (source, place) = match &one.source {
            ValueSource::Default => ("default", None),
            ValueSource::Place(place @ SourceLocation::Override(name)) if name.starts_with("--") => {
                ("flag", Some(place))
            }
            ValueSource::Place(place @ SourceLocation::Override(_)) => ("environment", Some(place)),
            ValueSource::Place(place @ (SourceLocation::File { .. } | SourceLocation::Whole(_))) => {
                ("file", Some(place))
            }
        };
        let line = json!({
            "key": one.path,
            "value": one.json(),
            "source": source,
            "place": place.map(ToString::to_string),
        });
        write_json(out, &line)?;
    }
    Ok(())
}
