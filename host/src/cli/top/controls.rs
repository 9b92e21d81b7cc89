//! Key handling: a state machine that depends on neither the host nor the terminal.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::cli::top::client::Act;
use crate::cli::top::snapshot::Snapshot;

/// Number of lines that the page keys move.
const PAGE: usize = 10;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Controls {
    /// Name of the selected plugin. A name, not an index, because plugins come and go.
    selected: Option<String>,
    /// Operation that waits for a confirmation.
    pub(super) asking: Option<(Act, String)>,
    pub(super) help: bool,
    /// Result of the last operation.
    pub(super) said: Option<String>,
}

/// The effect of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyAction {
    Nothing,
    Quit,
    Do(Act, String),
}

impl Controls {
    /// Returns the index of the selected plugin; the first one if the selected one has gone.
    pub(super) fn place(&self, snapshot: &Snapshot) -> Option<usize> {
        let chosen = self.selected.as_ref()?;
        let place = snapshot.plugins.iter().position(|plugin| plugin.name == *chosen);
        place.or_else(|| (!snapshot.plugins.is_empty()).then_some(0))
    }

    pub(super) fn press(&mut self, key: KeyEvent, snapshot: &Snapshot) -> KeyAction {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { KeyAction::Quit } else { KeyAction::Nothing };
        }
        self.said = None;
        if let Some((act, plugin)) = self.asking.take() {
            let yes = matches!(key.code, KeyCode::Char('y' | 'Y'));
            if yes {
                return KeyAction::Do(act, plugin);
            }
            self.said = Some(format!("{plugin}: left as it is"));
            return KeyAction::Nothing;
        }
        if self.help {
            self.help = false;
            return KeyAction::Nothing;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return KeyAction::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Down | KeyCode::Char('j') => self.go(snapshot, |place| place.map_or(0, |place| place + 1)),
            KeyCode::Up | KeyCode::Char('k') => {
                self.go(snapshot, |place| place.map_or(0, |place| place.saturating_sub(1)));
            }
            KeyCode::PageDown => self.go(snapshot, |place| place.map_or(0, |place| place + PAGE)),
            KeyCode::PageUp => self.go(snapshot, |place| place.map_or(0, |place| place.saturating_sub(PAGE))),
            KeyCode::Home => self.go(snapshot, |_| 0),
            KeyCode::End => self.go(snapshot, |_| usize::MAX),
            KeyCode::Char('p') => self.ask(Act::Pause, snapshot),
            KeyCode::Char('r') => self.ask(Act::Resume, snapshot),
            _ => {}
        }
        KeyAction::Nothing
    }

    /// Moves the selection. `to` gets `None` while nothing is selected.
    fn go(&mut self, snapshot: &Snapshot, to: impl FnOnce(Option<usize>) -> usize) {
        let last = snapshot.plugins.len().saturating_sub(1);
        let place = to(self.place(snapshot)).min(last);
        self.selected = snapshot.plugins.get(place).map(|plugin| plugin.name.clone());
    }

    fn ask(&mut self, act: Act, snapshot: &Snapshot) {
        match self.place(snapshot).and_then(|place| snapshot.plugins.get(place)) {
            Some(plugin) => self.asking = Some((act, plugin.name.clone())),
            None => self.said = Some("select a plugin first, with the arrow keys".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::top::snapshot::tests::sample;

    fn press(controls: &mut Controls, codes: &[KeyCode]) -> KeyAction {
        let mut action = KeyAction::Nothing;
        for code in codes {
            action = controls.press(KeyEvent::from(*code), &sample());
        }
        action
    }

    #[test]
    fn a_plugin_is_paused_only_when_it_is_selected_and_after_a_yes() {
        let mut controls = Controls::default();
        assert_eq!(press(&mut controls, &[KeyCode::Char('p')]), KeyAction::Nothing);
        assert_eq!((controls.asking.as_ref(), controls.said.is_some()), (None, true));
        press(&mut controls, &[KeyCode::Down, KeyCode::Down, KeyCode::Char('p')]);
        assert_eq!(controls.asking, Some((Act::Pause, "logger".to_owned())));
        assert_eq!(press(&mut controls, &[KeyCode::Char('n')]), KeyAction::Nothing);
        assert_eq!(controls.asking, None);
        let action = press(&mut controls, &[KeyCode::Char('r'), KeyCode::Char('y')]);
        assert_eq!(action, KeyAction::Do(Act::Resume, "logger".to_owned()));
    }

    #[test]
    fn arrows_stay_within_the_list_and_the_selection_follows_its_plugin() {
        let mut controls = Controls::default();
        press(&mut controls, &[KeyCode::End, KeyCode::Down]);
        assert_eq!(controls.place(&sample()), Some(2));
        press(&mut controls, &[KeyCode::Up]);
        let mut fewer = sample();
        fewer.plugins.remove(0);
        assert_eq!(controls.place(&fewer), Some(0), "still the logger");
        fewer.plugins.clear();
        assert_eq!(controls.place(&fewer), None);
        press(&mut controls, &[KeyCode::Home, KeyCode::Up]);
        assert_eq!(controls.place(&sample()), Some(0));
    }

    #[test]
    fn a_question_or_the_help_takes_one_key_and_ctrl_c_always_quits() {
        let mut controls = Controls::default();
        press(&mut controls, &[KeyCode::Char('?')]);
        assert!(controls.help);
        assert_eq!(press(&mut controls, &[KeyCode::Char('q')]), KeyAction::Nothing, "the key closes the help");
        assert_eq!(press(&mut controls, &[KeyCode::Char('q')]), KeyAction::Quit);
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        press(&mut controls, &[KeyCode::Down, KeyCode::Char('p')]);
        assert_eq!(controls.press(interrupt, &sample()), KeyAction::Quit);
    }
}
