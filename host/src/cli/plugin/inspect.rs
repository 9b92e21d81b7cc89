//! `notify-host plugin inspect`: shows what is in a plugin's file.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use config::{Capability, HostConfig, PluginConfig, secret_heading};
use contract::metadata::PluginInfo;
use event::text::shown;
use sandbox::{CapabilityRequest, GrantState, Loader, capability_requests};
use serde_json::json;
use state::digest::Digest;

use crate::cli::command::{say, unless_cut_off, write_json};
use crate::cli::plugin::settings::{Setting, settings};
use crate::cli::plugin::{loader, name_of, plugin_config};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Plugin file; grants in the toml beside it are shown, too
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Everything that the command shows.
struct Inspection {
    file: PathBuf,
    bytes: usize,
    digest: Digest,
    kind: &'static str,
    info: PluginInfo,
    imports: Vec<String>,
    capability_requests: Vec<CapabilityRequest>,
    settings: Vec<Setting>,
    /// Faults in the toml or in the schema.
    problems: Vec<String>,
}

pub(super) async fn run(arguments: &Arguments, host: &HostConfig) -> anyhow::Result<()> {
    let file = &arguments.file;
    let mut problems = Vec::new();
    // Continue with the defaults: a broken toml must not hide what the plugin is.
    let config = plugin_config(&file.with_extension("toml"), host).unwrap_or_else(|error| {
        problems.push(format!("{error}"));
        PluginConfig::default()
    });
    let cannot = || format!("cannot load {}", file.display());
    let content = Loader::read(file).with_context(cannot)?;
    let digest = Digest::of(&content);
    let described = loader(host)?.describe_content(&name_of(file), &content, digest, &config).await;
    let described = described.with_context(cannot)?;
    let settings = match described.info.config_schema.as_deref().map(settings) {
        Some(Ok(settings)) => settings,
        Some(Err(problem)) => {
            problems.push(problem);
            Vec::new()
        }
        None => Vec::new(),
    };
    let inspection = Inspection {
        file: file.clone(),
        bytes: content.len(),
        digest,
        // Byte 6 of the file is the layer field of the WebAssembly format: 0 is a module, 1 a component.
        kind: if content.get(6) == Some(&0) { "core module" } else { "component" },
        imports: described.imports(),
        capability_requests: capability_requests(&described.info, &config.grants),
        info: described.info,
        settings,
        problems,
    };
    unless_cut_off(inspection.print(arguments.json))?;
    for problem in &inspection.problems {
        say!("{problem}");
    }
    Ok(())
}

impl Inspection {
    fn print(&self, json: bool) -> io::Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if json {
            write_json(&mut out, &self.as_json())?;
            return out.flush();
        }
        let info = &self.info;
        let mut line = |name: &str, value: &str| writeln!(out, "{name:<14}{}", shown(value));
        line("name", &info.name)?;
        line("version", &info.version)?;
        line("description", &info.description)?;
        for (name, value) in &info.annotations {
            line(&shown(name), value)?;
        }
        let size = bytesize::ByteSize(self.bytes as u64).display().iec().to_string();
        line("file", &format!("{}, {size}, {}", self.file.display(), self.kind))?;
        line("sha256", &self.digest.to_string())?;
        let (contract, wasi, other) = self.imports_by_kind();
        line("imports", &or_nothing(&contract))?;
        // Only list WASI packages: most compilers import all interfaces, whatever the plugin uses.
        let mut packages: Vec<_> = wasi.iter().filter_map(|name| name.split('/').next().map(str::to_owned)).collect();
        packages.sort();
        packages.dedup();
        line("of WASI", &or_nothing(&packages))?;
        if !other.is_empty() {
            line("and", &other.join(", "))?;
        }
        for (at, events) in self.events().iter().enumerate() {
            line(if at == 0 { "gets" } else { "" }, events)?;
        }
        for (at, request) in self.capability_requests.iter().enumerate() {
            line(if at == 0 { "asks for" } else { "" }, &request_sentence(request))?;
        }
        for (at, setting) in self.settings.iter().enumerate() {
            line(if at == 0 { "settings" } else { "" }, &format!("{}: {}", setting.name, setting.sentence()))?;
        }
        writeln!(out)?;
        write!(out, "{}", self.toml())?;
        out.flush()
    }

    /// Splits the imports into those of the contract, those of WASI, and others. Versions are left out.
    fn imports_by_kind(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let (mut contract, mut wasi, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for import in &self.imports {
            let bare = import.split('@').next().unwrap_or_default();
            if let Some(interface) = bare.strip_prefix("notify:plugin/") {
                // The `types` interface says nothing about what the plugin does.
                if interface != "types" {
                    contract.push(interface.to_owned());
                }
            } else if let Some(interface) = bare.strip_prefix("wasi:") {
                wasi.push(interface.to_owned());
            } else {
                other.push(import.clone());
            }
        }
        (contract, wasi, other)
    }

    fn events(&self) -> Vec<String> {
        if self.info.subscriptions.is_empty() {
            return vec!["every event".to_owned()];
        }
        let patterns = |subscription: &contract::metadata::Subscription| {
            let more = [("source", &subscription.source), ("subject", &subscription.subject)];
            let more =
                more.into_iter().filter_map(|(name, pattern)| Some(format!(" with {name} {}", pattern.as_ref()?)));
            format!("{}{}", subscription.event_type, more.collect::<String>())
        };
        self.info.subscriptions.iter().map(patterns).collect()
    }

    /// Generates a toml for the plugin.
    fn toml(&self) -> String {
        let name = name_of(&self.file);
        let mut lines = vec![
            format!("# {}.toml, beside {}.wasm; every line may be absent", shown(&name), shown(&name)),
            format!("# sha256 = \"{}\"", self.digest),
            "# filter = 'data.total > 100'".to_owned(),
        ];
        let listed = [Capability::Http, Capability::Mail];
        let open: Vec<_> = listed.iter().filter_map(|capability| self.grant_lines(*capability)).collect();
        if !open.is_empty() {
            lines.push(String::new());
            lines.push("[grants]    # what it asks for: take the # away from what it may have".to_owned());
            lines.extend(open.into_iter().flatten());
        }
        for (name, why) in self.secrets() {
            let variable = name.to_uppercase().replace(|character: char| !character.is_ascii_alphanumeric(), "_");
            lines.push(String::new());
            lines.push(format!("# {}    # {}", secret_heading(&name), shown(&why)));
            lines.push(format!("# env = {variable:?}    # or file = \"PATH\", or credential = \"NAME\" of systemd"));
            lines.push("# to = []    # where it may be sent [default: wherever HTTP is granted]".to_owned());
            lines.push("# reveal = false    # whether the plugin itself may see it".to_owned());
        }
        if !self.settings.is_empty() {
            lines.push(String::new());
            lines.push("[config]".to_owned());
            for setting in &self.settings {
                lines.push(format!("{}    # {}", setting.line(), shown(&setting.sentence())));
            }
        }
        lines.join("\n") + "\n"
    }

    /// Returns the secrets that the plugin requests, and why.
    fn secrets(&self) -> Vec<(String, String)> {
        let secret = |request: &CapabilityRequest| match &request.standing {
            GrantState::Granted(scope) | GrantState::NotGranted(scope) if scope.capability == Capability::Secret => {
                Some((scope.to_string(), request.why.clone()))
            }
            GrantState::Granted(_) | GrantState::NotGranted(_) | GrantState::Senseless(_) => None,
        };
        self.capability_requests.iter().filter_map(secret).collect()
    }

    fn grant_lines(&self, capability: Capability) -> Option<Vec<String>> {
        let asked = self.capability_requests.iter().filter_map(|request| match &request.standing {
            GrantState::Granted(scope) | GrantState::NotGranted(scope) if scope.capability == capability => {
                Some((format!("{:?}", scope.to_string()), format!("# {scope}: {}", shown(&request.why))))
            }
            GrantState::Granted(_) | GrantState::NotGranted(_) | GrantState::Senseless(_) => None,
        });
        let (scopes, mut lines): (Vec<_>, Vec<_>) = asked.unzip();
        if scopes.is_empty() {
            return None;
        }
        lines.push(format!("# {capability} = [{}]", scopes.join(", ")));
        Some(lines)
    }

    fn as_json(&self) -> serde_json::Value {
        let info = &self.info;
        let (contract, wasi, other) = self.imports_by_kind();
        let annotations: serde_json::Map<_, _> =
            info.annotations.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let subscriptions = info.subscriptions.iter().map(|subscription| {
            json!({
                "event_type": subscription.event_type, "source": subscription.source, "subject": subscription.subject,
            })
        });
        let requests = self.capability_requests.iter().map(|request| {
            let problem = match &request.standing {
                GrantState::Senseless(problem) => Some(problem),
                GrantState::Granted(_) | GrantState::NotGranted(_) => None,
            };
            json!({
                "capability": request.capability,
                "scope": request.scope,
                "why": request.why,
                "granted": matches!(request.standing, GrantState::Granted(_)),
                "problem": problem,
            })
        });
        let schema = info.config_schema.as_deref().and_then(|schema| serde_json::from_str(schema).ok());
        json!({
            "name": info.name,
            "version": info.version,
            "description": info.description,
            "annotations": annotations,
            "file": self.file.display().to_string(),
            "bytes": self.bytes,
            "sha256": self.digest,
            "kind": self.kind,
            "imports": { "contract": contract, "wasi": wasi, "other": other },
            "subscriptions": subscriptions.collect::<Vec<_>>(),
            "requests": requests.collect::<Vec<_>>(),
            "config_schema": schema.unwrap_or(serde_json::Value::Null),
            "toml": self.toml(),
        })
    }
}

fn request_sentence(request: &CapabilityRequest) -> String {
    let standing = match &request.standing {
        GrantState::Granted(_) => "granted".to_owned(),
        GrantState::NotGranted(_) => "not granted".to_owned(),
        GrantState::Senseless(problem) => format!("cannot be granted: {problem}"),
    };
    format!("{} {} ({}): {standing}", request.capability, request.scope, request.why)
}

fn or_nothing(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
