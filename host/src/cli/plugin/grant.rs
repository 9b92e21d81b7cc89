//! `notify-host plugin grant`: writes the capabilities that a plugin requests into its toml, after a confirmation.

use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use clap::Args;
use config::{Capability, HostConfig, PluginConfig, Scope, SecretSource};
use event::text::{counted, shown};
use sandbox::{CapabilityRequest, GrantState, Loader, capability_requests, is_plugin_name, look};
use state::digest::Digest;
use state::write_whole;
use toml_edit::{Array, DocumentMut, Item, Table, Value};

use crate::cli::command::say;
use crate::cli::confirm::{ConfirmAnswer, PromptedLine, confirm, line};
use crate::cli::plugin::{loader, plugin_config};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Plugin name: its file name without .wasm
    name: String,
    /// Source of a requested secret's value: NAME=env:VARIABLE, NAME=file:PATH or NAME=credential:NAME (a systemd
    /// credential)
    #[arg(long = "secret", value_name = "NAME=SOURCE")]
    secrets: Vec<SecretArgument>,
    /// Do not ask for confirmation
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
    let capability_requests = capability_requests(&described.info, &config.grants);
    for request in &capability_requests {
        say!("{}", sentence(name, request));
    }
    let open: Vec<_> = capability_requests.iter().filter_map(not_granted).collect();
    if open.is_empty() {
        let nothing =
            if capability_requests.is_empty() { "it asks for nothing" } else { "there is nothing more to grant" };
        say!("{name} {}: {nothing}", shown(&described.info.version));
        return Ok(());
    }
    let sources = sources(name, &open, &arguments.secrets).await?;
    let count = counted(open.len(), "grant");
    let question = format!("write {count} into {}?", toml.display());
    match if arguments.yes { ConfirmAnswer::Yes } else { confirm(&question).await } {
        ConfirmAnswer::Yes => {}
        ConfirmAnswer::No => {
            say!("nothing was written");
            return Ok(());
        }
        ConfirmAnswer::NobodyToAsk => bail!("there is nobody to ask whether to write {count}: add --yes"),
        ConfirmAnswer::NotGiven => bail!("nobody answered, and nothing was written"),
    }
    if read(&toml)? != before {
        bail!("{} was changed meanwhile, and nothing was written: look at it, and try again", toml.display());
    }
    let after = with_grants(before.as_deref().unwrap_or_default(), &open, &sources)
        .with_context(|| format!("{} cannot be edited", toml.display()))?;
    write_whole(&toml, after.as_bytes()).with_context(|| format!("cannot write {}", toml.display()))?;
    say!("wrote {count} into {}", toml.display());
    Ok(())
}

fn read(toml: &Path) -> anyhow::Result<Option<String>> {
    PluginConfig::text(toml).map_err(anyhow::Error::msg)
}

fn not_granted(request: &CapabilityRequest) -> Option<&Scope> {
    match &request.standing {
        GrantState::NotGranted(scope) => Some(scope),
        GrantState::Granted(_) | GrantState::Senseless(_) => None,
    }
}

fn sentence(name: &str, request: &CapabilityRequest) -> String {
    let why = shown(&request.why);
    let (scope, granted) = match &request.standing {
        GrantState::Granted(scope) => (scope, " (granted)"),
        GrantState::NotGranted(scope) => (scope, ""),
        GrantState::Senseless(problem) => {
            let (capability, scope) = (shown(&request.capability), shown(&request.scope));
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

/// Determines the source of each secret among these scopes, from the command line or by asking.
async fn sources(plugin: &str, open: &[&Scope], given: &[SecretArgument]) -> anyhow::Result<Vec<SecretArgument>> {
    let secrets = || open.iter().filter(|scope| scope.capability == Capability::Secret).map(ToString::to_string);
    for source in given {
        if secrets().all(|name| name != source.name) {
            bail!(
                "{plugin} does not ask for a secret {} that is not granted: where it comes from is changed in the toml",
                shown(&source.name)
            );
        }
    }
    let (mut sources, mut missing) = (Vec::new(), Vec::new());
    for name in secrets() {
        if let Some(source) = given.iter().find(|source| source.name == name) {
            sources.push(source.clone());
            continue;
        }
        let question = format!(
            "where does the value of the secret {name} come from? env:VARIABLE, file:PATH or credential:NAME (of systemd): "
        );
        match line(&question).await {
            PromptedLine::Given(answer) => {
                sources.push(format!("{name}={answer}").parse().map_err(anyhow::Error::msg)?);
            }
            PromptedLine::NobodyToAsk => missing.push(format!("--secret {name}=env:VARIABLE")),
            PromptedLine::NotGiven => bail!("nobody answered, and nothing was written"),
        }
    }
    if !missing.is_empty() {
        bail!(
            "where the values of its secrets come from must be said: add {}, or file:PATH or credential:NAME (of systemd) \
             instead of env:VARIABLE",
            missing.join(" ")
        );
    }
    Ok(sources)
}

/// The source of one secret's value: `slack-token=env:SLACK_TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SecretArgument {
    name: String,
    source: SecretSource,
}

impl FromStr for SecretArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Do not repeat the text in an error: it may be the secret value itself.
        let parts = text.split_once('=').and_then(|(name, source)| Some((name, source.split_once(':')?)));
        let Some((name, (kind, place))) = parts else {
            return Err("expected NAME=env:VARIABLE, NAME=file:PATH or NAME=credential:NAME, and no value".to_owned());
        };
        let source = match SecretSource::new(kind.trim(), place.trim())? {
            // On the command line, paths are relative to the current folder, not to the toml.
            SecretSource::File(path) => {
                let path = std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
                SecretSource::File(path)
            }
            source => source,
        };
        Ok(Self { name: name.to_owned(), source })
    }
}

/// Adds the grants to the text, and leaves the rest as it is.
fn with_grants(text: &str, scopes: &[&Scope], sources: &[SecretArgument]) -> anyhow::Result<String> {
    let mut document: DocumentMut = text.parse()?;
    with_scopes(&mut document, scopes)?;
    with_secrets(&mut document, sources)?;
    Ok(document.to_string())
}

fn with_secrets(document: &mut DocumentMut, sources: &[SecretArgument]) -> anyhow::Result<()> {
    if sources.is_empty() {
        return Ok(());
    }
    let mut around = Table::new();
    // `[secrets.NAME]` needs no `[secrets]` heading.
    around.set_implicit(true);
    let secrets = document.entry("secrets").or_insert(Item::Table(around));
    let is_inline = secrets.is_inline_table();
    let secrets = secrets.as_table_like_mut().context("secrets is no table")?;
    for SecretArgument { name, source } in sources {
        let (key, value) = source.entry();
        if secrets.contains_key(name) {
            continue;
        }
        let mut secret = Table::new();
        secret.insert(key, toml_edit::value(value));
        let secret = if is_inline { Item::Value(secret.into_inline_table().into()) } else { Item::Table(secret) };
        secrets.insert(name, secret);
    }
    if let Some(Item::Value(Value::InlineTable(secrets))) = document.get_mut("secrets") {
        secrets.fmt();
    }
    Ok(())
}

fn with_scopes(document: &mut DocumentMut, scopes: &[&Scope]) -> anyhow::Result<()> {
    // Grants of secrets have tables of their own.
    let mut scopes = scopes.iter().filter(|scope| scope.capability != Capability::Secret).peekable();
    if scopes.peek().is_none() {
        return Ok(());
    }
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
        // Otherwise the space after the last value would end up before the new comma.
        grants.fmt();
    }
    Ok(())
}

/// Appends an entry, on a line of its own if the others are.
fn push(list: &mut Array, scope: String) {
    let trailing = list.trailing().as_str().unwrap_or_default().trim_end().to_owned();
    let before_last = list.iter().last().and_then(|last| last.decor().prefix()?.as_str()).unwrap_or_default();
    let Some((_, indent)) = before_last.rsplit_once('\n') else {
        list.push(scope);
        return;
    };
    // A comment after the last entry stays with that entry.
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
        let sources = ["slack-token=env:SLACK_TOKEN".parse().unwrap()];
        let written = with_grants(before, &[&http, &secret], &sources).unwrap();
        assert_eq!(written, after);
        assert_eq!(with_grants(&written, &[&http, &secret], &sources).unwrap(), after, "a second time changes nothing");
    }

    #[test]
    fn grants_are_added_and_all_else_stays_as_it_was() {
        check("", "[grants]\nhttp = [\"https://hooks.slack.com\"]\n\n[secrets.slack-token]\nenv = \"SLACK_TOKEN\"\n");
        check(
            "# ours\nenabled = true   # yes\n\n[grants] # by Ann\nhttp = [\n  \"https://a.example\", # old\n]\n\n[config]\nb = 2\na = 1\n",
            "# ours\nenabled = true   # yes\n\n[grants] # by Ann\nhttp = [\n  \"https://a.example\", # old\n  \
             \"https://hooks.slack.com\",\n]\n\n[config]\nb = 2\na = 1\n\n[secrets.slack-token]\nenv = \"SLACK_TOKEN\"\n",
        );
        check(
            "grants = { http = [\"https://a.example\"] }\nsecrets = { a = { env = \"A\" } }\n",
            "grants = { http = [\"https://a.example\", \"https://hooks.slack.com\"] }\n\
             secrets = { a = { env = \"A\" }, slack-token = { env = \"SLACK_TOKEN\" } }\n",
        );
        check(
            "[grants]\nhttp = [\"https://hooks.slack.com\"]\n[secrets.a] # first\nenv = \"A\"\n[config]\nb = 1\n",
            "[grants]\nhttp = [\"https://hooks.slack.com\"]\n[secrets.a] # first\nenv = \"A\"\n\
             \n[secrets.slack-token]\nenv = \"SLACK_TOKEN\"\n[config]\nb = 1\n",
        );
        let http = Scope::new(Capability::Http, "https://a.example").unwrap();
        assert!(with_grants("grants = 1", &[&http], &[]).is_err());
        assert!(with_grants("secrets = 1", &[], &["a=env:A".parse().unwrap()]).is_err());
    }

    #[test]
    fn a_source_is_named_and_a_value_is_not_taken_for_one() {
        let entry = |text: &str| text.parse::<SecretArgument>().map(|source| source.source.entry());
        assert_eq!(entry("a=env:A"), Ok(("env", "A".to_owned())));
        assert_eq!(entry("a=credential:a"), Ok(("credential", "a".to_owned())));
        assert_eq!(entry("a=file:/b:c=d"), Ok(("file", "/b:c=d".to_owned())));
        let path = std::env::current_dir().unwrap().join("b");
        assert_eq!(entry("a=file:b"), Ok(("file", path.display().to_string())), "from where the command is given");
        for text in ["a", "a=hunter2", "=", "a=env:", "a=hunter2:x", "a=vault:hunter2"] {
            let problem = entry(text).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }
}
