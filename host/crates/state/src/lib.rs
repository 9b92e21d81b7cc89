//! The state folder holds the data that a host keeps outside the queue: compiled plugins, earlier plugin
//! versions that worked, and the sockets through which commands reach running hosts.
//!
//! No event depends on it. A host that loses its state folder compiles its plugins again and has nothing to
//! roll back to.

#![allow(missing_docs, reason = "internal to the host: most of these names say what they are")]

pub mod digest;
pub mod file;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use crate::digest::Digest;

/// Permissions of a newly created file.
const NEW_FILE_MODE: u32 = 0o644;

/// Returns the default state folder: `notify-host` in the user's state directory (`$XDG_STATE_HOME/notify-host`
/// on Linux). Returns `None` if the user has no home directory.
pub fn default_for_user() -> Option<PathBuf> {
    use etcetera::BaseStrategy as _;
    let directories = etcetera::choose_base_strategy().ok()?;
    Some(directories.state_dir().unwrap_or_else(|| directories.data_dir()).join("notify-host"))
}

/// Returns the state folder of one plugin folder. All hosts that serve the plugin folder share it.
pub fn of_plugins(state: &Path, plugins: &Path) -> PathBuf {
    // Derive the name from the path as given, without resolving links. A link may move on to the next release,
    // and the folder may not exist yet.
    let mut name = PathBuf::new();
    for part in std::path::absolute(plugins).unwrap_or_else(|_| plugins.to_owned()).components() {
        match part {
            Component::ParentDir => drop(name.pop()),
            part => name.push(part),
        }
    }
    state.join("folders").join(Digest::of(name.as_os_str().as_encoded_bytes()).short())
}

/// Creates a folder that only this user can access, or checks that an existing one is private.
pub fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let metadata = fs::metadata(folder)?;
    let problem = if metadata.uid() != rustix::process::geteuid().as_raw() {
        "it belongs to another user"
    } else if metadata.mode() & 0o022 != 0 {
        "others may write to it"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Writes a file atomically, so that nobody sees half of it. An existing file keeps its owner and permissions,
/// and a link to it stays a link.
pub fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let (path, old) = match fs::canonicalize(path) {
        Ok(real) => {
            let old = fs::metadata(&real)?;
            (real, Some(old))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), None),
        Err(error) => return Err(error),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The suffix keeps a watcher of the plugin folder from taking this for a plugin.
    let mut file = tempfile::Builder::new().prefix(".new-").suffix(".part").tempfile_in(folder)?;
    file.write_all(content)?;
    let mode = old.as_ref().map_or(NEW_FILE_MODE, |old| old.mode() & 0o7777);
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
    if let Some(old) = old {
        let new = file.as_file().metadata()?;
        // Keep the owner. A host that runs as another user might lose access otherwise.
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            std::os::unix::fs::chown(file.path(), Some(old.uid()), Some(old.gid()))?;
        }
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_others_may_write_to_is_not_private() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("a/b");
        private_folder(&own).unwrap();
        private_folder(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(private_folder(&own).unwrap_err().to_string(), "others may write to it");
    }

    #[test]
    fn a_folder_of_plugins_is_the_same_by_whatever_way() {
        let folder = tempfile::tempdir().unwrap();
        let (state, plugins) = (Path::new("/state"), folder.path().join("plugins"));
        let before = of_plugins(state, &plugins);
        fs::create_dir(&plugins).unwrap();
        assert_eq!(of_plugins(state, &plugins.join("../plugins")), before);
        assert_ne!(of_plugins(state, folder.path()), before);

        // A link is identified by its own name, wherever it leads.
        let link = folder.path().join("current");
        let of_link = of_plugins(state, &link);
        std::os::unix::fs::symlink(&plugins, &link).unwrap();
        assert_eq!(of_plugins(state, &link), of_link);
    }

    #[test]
    fn a_file_is_replaced_with_its_permissions_and_behind_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.toml"), folder.path().join("link.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_whole(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let new = folder.path().join("new.toml");
        write_whole(&new, b"new").unwrap();
        assert_eq!(fs::metadata(&new).unwrap().mode() & 0o777, NEW_FILE_MODE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "nothing is left behind");
    }
}
