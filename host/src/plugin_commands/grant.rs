//! `notify-host plugin grant`: what a plugin asks for, written into its toml after a yes.

use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Args;
use toml_edit::{Array, DocumentMut, Item, Table, Value};

use crate::ask::{Answer, confirm};
use crate::command::{counted, say, shown};
use crate::config::{Capability, HostConfig, PluginConfig, Scope};
use crate::digest::Digest;
use crate::plugin::{Loader, Standing, Wish, is_plugin_name, look, wishes};
use crate::plugin_commands::{loader, plugin_config};
use crate::state::write_whole;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The plugin's name: that of its file, without .wasm
    name: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) async fn run(arguments: &Arguments, host: &HostConfig) -> anyhow::Result<()> {
    let name = &arguments.name;
    let entry = if is_plugin_name(name) { look(&host.plugins, name) } else { None };
    let Some(entry) = entry else {
        let folder = host.plugins.display();
        bail!("there is no plugin {name:?} in {folder}: no {name}.wasm, and no {name}.toml that names a file");
    };
    let toml = entry.toml;
    let before = read(&toml)?;
    let config = plugin_config(&toml, host)?;
    let cannot = || format!("cannot load {}", entry.wasm.display());
    let content = Loader::read(&entry.wasm).with_context(cannot)?;
    let described = loader(host)?.describe_content(name, &content, Digest::of(&content), &config).await;
    let described = described.with_context(cannot)?;
    let wishes = wishes(&described.info, &config.grants);
    for wish in &wishes {
        say!("{}", sentence(name, wish));
    }
    let open: Vec<_> = wishes.iter().filter_map(not_granted).collect();
    if open.is_empty() {
        let nothing = if wishes.is_empty() { "it asks for nothing" } else { "there is nothing more to grant" };
        say!("{name} {}: {nothing}", shown(&described.info.version));
        return Ok(());
    }
    for capability in Capability::ALL.into_iter().filter(|capability| !capability.is_there()) {
        if open.iter().any(|scope| scope.capability == capability) {
            say!(
                "this version of the host has no {capability} yet: the grant is written down, and does nothing so far"
            );
        }
    }
    let count = counted(open.len(), "grant");
    let question = format!("write {count} into {}?", toml.display());
    match if arguments.yes { Answer::Yes } else { confirm(&question).await } {
        Answer::Yes => {}
        Answer::No => {
            say!("nothing was written");
            return Ok(());
        }
        Answer::NobodyToAsk => bail!("there is nobody to ask whether to write {count}: add --yes"),
        Answer::NotGiven => bail!("nobody answered, and nothing was written"),
    }
    if read(&toml)? != before {
        bail!("{} was changed meanwhile, and nothing was written: look at it, and try again", toml.display());
    }
    let after = with_grants(before.as_deref().unwrap_or_default(), &open)
        .with_context(|| format!("{} cannot be edited", toml.display()))?;
    write_whole(&toml, after.as_bytes()).with_context(|| format!("cannot write {}", toml.display()))?;
    say!("wrote {count} into {}", toml.display());
    Ok(())
}

fn read(toml: &Path) -> anyhow::Result<Option<String>> {
    PluginConfig::text(toml).map_err(anyhow::Error::msg)
}

fn not_granted(wish: &Wish) -> Option<&Scope> {
    match &wish.standing {
        Standing::NotGranted(scope) => Some(scope),
        Standing::Granted(_) | Standing::Senseless(_) => None,
    }
}

fn sentence(name: &str, wish: &Wish) -> String {
    let why = shown(&wish.why);
    let (scope, granted) = match &wish.standing {
        Standing::Granted(scope) => (scope, " (granted)"),
        Standing::NotGranted(scope) => (scope, ""),
        Standing::Senseless(problem) => {
            let (capability, scope) = (shown(&wish.capability), shown(&wish.scope));
            return format!(
                "{name} asks for {capability} {scope} ({why}), which cannot be granted: {}",
                shown(problem)
            );
        }
    };
    let what = match scope.capability {
        Capability::Http => "send HTTP requests to",
        Capability::Mail => "send mail to",
        Capability::Secret => "use the secret",
    };
    format!("{name} wants to {what} {scope}: {why}{granted}")
}

/// The text with these grants in it, and all else as it was.
fn with_grants(text: &str, scopes: &[&Scope]) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    let grants = document.entry("grants").or_insert_with(|| Item::Table(Table::new()));
    let grants = grants.as_table_like_mut().context("grants is no table")?;
    for scope in scopes {
        let list = grants.entry(scope.capability.as_str()).or_insert_with(|| Array::new().into());
        let list = list.as_array_mut().with_context(|| format!("grants.{} is no list", scope.capability))?;
        let scope = scope.to_string();
        if !list.iter().any(|granted| granted.as_str() == Some(&scope)) {
            push(list, scope);
        }
    }
    if let Some(Item::Value(Value::InlineTable(grants))) = document.get_mut("grants") {
        // Else the new key stands behind the last one's blank.
        grants.fmt();
    }
    Ok(document.to_string())
}

/// At the end; on a line of its own where the others have theirs.
fn push(list: &mut Array, scope: String) {
    let trailing = list.trailing().as_str().unwrap_or_default().trim_end().to_owned();
    let before_last = list.iter().last().and_then(|last| last.decor().prefix()?.as_str()).unwrap_or_default();
    let Some((_, indent)) = before_last.rsplit_once('\n') else {
        list.push(scope);
        return;
    };
    // What stands behind the last entry, a comment, stays with it.
    let scope = Value::from(scope).decorated(format!("{trailing}\n{indent}"), "");
    list.push_formatted(scope);
    list.set_trailing("\n");
    list.set_trailing_comma(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(before: &str, after: &str) {
        let scope = |capability, text| Scope::new(capability, text).unwrap();
        let (http, secret) =
            (scope(Capability::Http, "https://hooks.slack.com"), scope(Capability::Secret, "slack-token"));
        let written = with_grants(before, &[&http, &secret]).unwrap();
        assert_eq!(written, after);
        assert_eq!(with_grants(&written, &[&http, &secret]).unwrap(), after, "a second time changes nothing");
    }

    #[test]
    fn grants_are_added_and_all_else_stays_as_it_was() {
        check("", "[grants]\nhttp = [\"https://hooks.slack.com\"]\nsecret = [\"slack-token\"]\n");
        check(
            "# ours\nenabled = true   # yes\n\n[grants] # by Ann\nhttp = [\n  \"https://a.example\", # old\n]\n\n[config]\nb = 2\na = 1\n",
            "# ours\nenabled = true   # yes\n\n[grants] # by Ann\nhttp = [\n  \"https://a.example\", # old\n  \
             \"https://hooks.slack.com\",\n]\nsecret = [\"slack-token\"]\n\n[config]\nb = 2\na = 1\n",
        );
        check(
            "grants = { http = [\"https://a.example\"] }\n",
            "grants = { http = [\"https://a.example\", \"https://hooks.slack.com\"], secret = [\"slack-token\"] }\n",
        );
        assert!(with_grants("grants = 1", &[&Scope::new(Capability::Secret, "x").unwrap()]).is_err());
    }
}
