//! The container image, as the Dockerfile defines it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::shipped::{project, shipped as read};
use crate::world::built;

/// The image's defaults, which a container can override.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) environment: BTreeMap<String, String>,
    pub(super) user: u32,
    pub(super) entrypoint: Vec<String>,
    pub(super) command: Vec<String>,
    pub(super) health_check: Vec<String>,
    pub(super) stop_signal: String,
    pub(super) port: u16,
    /// The plugins in its folder.
    plugins: Vec<String>,
}

impl Image {
    pub(super) fn read() -> Self {
        let dockerfile = read("Dockerfile");
        let (build, shipped) = dockerfile.rsplit_once("\nFROM ").expect("a stage that builds, and one that is shipped");
        let plugins = build.split_once("for plugin in ").and_then(|(_, rest)| rest.split_once(';')).unwrap().0;
        let of = |instruction: &str| -> &str {
            let mut lines = shipped.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
            let line = lines.next().unwrap_or_else(|| panic!("the Dockerfile has no {instruction}"));
            assert_eq!(lines.next(), None, "{instruction} is there once");
            line
        };
        let list = |text: &str| serde_json::from_str::<Vec<String>>(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let environment = of("ENV").split_whitespace().map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("{pair}"));
            (name.to_owned(), value.to_owned())
        });
        let (user, group) = of("USER").split_once(':').expect("a user and a group");
        assert_eq!(user, group);
        for copied in [
            "COPY --from=build /out/bin/ /usr/local/bin/",
            "COPY --from=build /out/plugins/ /plugins/",
            "COPY --from=build --chown=65532:65532 /out/state/ /var/lib/notify-host/",
        ] {
            assert!(shipped.contains(copied), "the tests make of an image what it had with: {copied}");
        }
        Self {
            environment: environment.collect(),
            user: user.parse().unwrap(),
            entrypoint: list(of("ENTRYPOINT")),
            command: list(of("CMD")),
            health_check: list(of("HEALTHCHECK").split_once("CMD ").unwrap().1),
            stop_signal: of("STOPSIGNAL").to_owned(),
            port: of("EXPOSE").parse().unwrap(),
            plugins: plugins.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// Fills a folder with the plugins and their tomls, as the build does.
    pub(super) fn fill_plugins(&self, folder: &Path) {
        for plugin in &self.plugins {
            let wasm = format!("{plugin}.wasm");
            fs::copy(built("NOTIFY_TEST_PLUGINS", &wasm), folder.join(wasm)).unwrap();
            let starter = project().join("plugins").join(plugin).join("starter.toml");
            if starter.exists() {
                fs::copy(starter, folder.join(format!("{plugin}.toml"))).unwrap();
            }
        }
    }
}
