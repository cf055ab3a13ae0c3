//! The file that results go to: whole at any time, so that a run that is stopped loses only what it had not measured.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cli::Failure;

/// Where results are written, if anywhere.
pub(super) struct Results<'a>(Option<&'a Path>);

impl<'a> Results<'a> {
    pub fn to(path: Option<&'a PathBuf>) -> Self {
        Self(path.map(PathBuf::as_path))
    }

    /// Puts `document` in the place of what was there, in one step. It says by `complete` whether more is to come.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, document: impl FnOnce() -> Value, complete: bool) -> Result<(), Failure> {
        let Some(path) = self.0 else { return Ok(()) };
        // A pipe or a terminal cannot be replaced, and is told once.
        let is_stream = fs::metadata(path).is_ok_and(|it| !it.is_file());
        if is_stream && !complete {
            return Ok(());
        }
        let mut document = document();
        document["complete"] = complete.into();
        let text = format!("{document:#}\n");
        let written = match is_stream {
            true => fs::write(path, text),
            false => {
                let mut draft = path.as_os_str().to_owned();
                draft.push(".new");
                fs::write(&draft, text).and_then(|()| fs::rename(&draft, path))
            }
        };
        written.map_err(|error| {
            Failure::new(format!("cannot write {}", path.display())).caused_by(&error)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_whole_after_each_row_and_says_when_it_is_complete() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.json");
        let results = Results::to(Some(&path));
        let read = || -> Value { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
        results.write(|| json!({"rows": [1, 2, 3]}), false).unwrap();
        assert_eq!(read(), json!({"rows": [1, 2, 3], "complete": false}));
        results.write(|| json!({"rows": [1]}), true).unwrap();
        assert_eq!(read(), json!({"rows": [1], "complete": true}));
        // No draft is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        Results::to(None).write(|| unreachable!(), true).unwrap();
        let nowhere = folder.path().join("no/out.json");
        let failed = Results::to(Some(&nowhere)).write(|| json!({}), true);
        assert!(failed.unwrap_err().to_string().contains("cannot write"));
    }

    #[test]
    fn what_is_no_file_is_written_once_and_stays_what_it_is() {
        use std::os::unix::fs::FileTypeExt;
        let null = PathBuf::from("/dev/null");
        let results = Results::to(Some(&null));
        results.write(|| unreachable!(), false).unwrap();
        results.write(|| json!({}), true).unwrap();
        assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
    }
}
