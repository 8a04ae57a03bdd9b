//! The guide and the other documents stay true: links lead somewhere, commands, inputs and tables are the program's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use verlet::config::RunConfig;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Markdown files directly in a folder of the repository.
fn markdown(folder: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root().join(folder)) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    files.sort();
    files
}

/// The guide and the README.
fn guide() -> Vec<PathBuf> {
    [markdown("docs/src"), vec![root().join("README.md")]].concat()
}

/// Language and text of every fenced block; indented ones have the language "sh". The rest of the text comes last.
fn blocks(text: &str) -> (Vec<(String, String)>, String) {
    let (mut blocks, mut prose): (Vec<(String, String)>, String) = (Vec::new(), String::new());
    let mut fenced = false;
    for line in text.lines() {
        if let Some(language) = line.strip_prefix("```") {
            fenced = !fenced;
            if fenced {
                blocks.push((language.to_owned(), String::new()));
            }
        } else if fenced {
            let block = &mut blocks.last_mut().unwrap().1;
            block.push_str(line);
            block.push('\n');
        } else if let Some(command) = line.strip_prefix("    ").filter(|_| !line.trim_start().starts_with('-')) {
            blocks.push(("sh".into(), command.to_owned()));
        } else {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    assert!(!fenced, "a block is not closed");
    (blocks, prose)
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn the_summary_has_every_page() {
    let summary = read(&root().join("docs/src/SUMMARY.md"));
    let linked: BTreeSet<_> =
        summary.split("](").skip(1).map(|rest| rest.split(')').next().unwrap().to_owned()).collect();
    let pages = markdown("docs/src").into_iter().map(|page| page.file_name().unwrap().to_str().unwrap().to_owned());
    assert_eq!(linked, pages.filter(|page| page != "SUMMARY.md").collect());
}

#[test]
fn links_lead_somewhere() {
    let folders = ["", "docs/src", "training", "inputs/models", "validation", "validation/results"];
    let mut checked = 0;
    for page in folders.into_iter().flat_map(markdown) {
        let text = read(&page);
        let (_, prose) = blocks(&text);
        let links = prose.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
        let included = text.split("{{#include ").skip(1).map(|rest| rest.split([':', '}']).next().unwrap());
        for link in links.chain(included).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !heading.is_empty() {
                let (_, text) = blocks(&read(&target));
                let mut headings = text.lines().filter_map(|line| line.strip_prefix('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == heading);
                assert!(found, "{}: {} has no heading {heading}", page.display(), target.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 20);
}

/// The words of a shell command; quotes hold words together.
fn words(command: &str) -> Vec<String> {
    let command = command.split(" #").next().unwrap();
    let parts = command.split('"').enumerate();
    let mut words: Vec<String> = Vec::new();
    for (number, part) in parts {
        if number % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn every_command_is_understood() {
    let mut checked = 0;
    for page in guide() {
        let (blocks, _) = blocks(&read(&page));
        let lines = blocks.iter().filter(|(language, _)| language == "sh").flat_map(|(_, text)| text.lines());
        for line in lines.filter(|line| line.starts_with("verlet ")) {
            let words = words(line);
            if let Err(error) = verlet::cli::command().try_get_matches_from(&words)
                && error.use_stderr()
            {
                panic!("{}: {line}\n{error}", page.display());
            }
            for file in words.iter().filter(|word| word.starts_with("inputs/")) {
                assert!(root().join(file).exists(), "{}: {line}: there is no {file}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 15);
}

#[test]
fn every_input_is_accepted() {
    let mut checked = 0;
    for page in guide() {
        for (language, text) in blocks(&read(&page)).0 {
            if language != "toml" {
                continue;
            }
            // Most show only what they are about: the keys that every input needs are added.
            let mut input: toml::Table = text.parse().unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            let mut need = |section: &str, key: &str, value: toml::Value| {
                let table = input.entry(section).or_insert_with(|| toml::Table::new().into());
                table.as_table_mut().unwrap().entry(key).or_insert(value);
            };
            need("system", "structure", "a.xyz".into());
            need("model", "file", "m.safetensors".into());
            need("dynamics", "temperature", 300.into());
            if input["dynamics"].get("duration").is_none() {
                input["dynamics"].as_table_mut().unwrap().entry("steps").or_insert(1.into());
            }
            let input = toml::to_string(&input).unwrap();
            if let Err(error) = RunConfig::parse(&page, &input, &[]) {
                panic!("{}: {error}\n{text}", page.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 10);
}

#[test]
fn the_keys_are_the_programs() {
    let output = Command::new(env!("CARGO_BIN_EXE_verlet")).args(["info", "--keys"]).output().unwrap();
    let keys = String::from_utf8(output.stdout).unwrap();
    let page = read(&root().join("docs/src/keys.md"));
    assert!(page.ends_with(&keys), "docs/src/keys.md does not end with what `verlet info --keys` prints");
}

/// The config shown is that of the shipped model, and the table has all of its tensors.
#[test]
fn the_model_file_is_described_as_it_is() {
    let bytes = std::fs::read(root().join("inputs/models/ethanol-water-v2.safetensors")).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let config = &metadata.metadata().as_ref().unwrap()["config"];
    let config: serde_json::Value = serde_json::from_str(config).unwrap();
    let page = read(&root().join("docs/src/models.md"));
    let (blocks, prose) = blocks(&page);
    let shown = &blocks.iter().find(|(language, _)| language == "json").unwrap().1;
    let shown: serde_json::Value = serde_json::from_str(shown).unwrap();
    for (key, value) in shown.as_object().unwrap() {
        // What another training changes is compared in form only.
        if ["energy_offset", "provenance"].contains(&key.as_str()) {
            assert!(config.get(key).is_some(), "{key}");
        } else {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
    }
    for name in metadata.tensors().keys() {
        let parts = name.split('.').collect::<Vec<_>>();
        let layer = |k: usize| k == 2 && ["interactions", "mixing"].contains(&parts[1]);
        let general: Vec<_> = (0..parts.len()).map(|k| if layer(k) { "l" } else { parts[k] }).collect();
        let general = general.join(".");
        let general = general.trim_end_matches(".weight").trim_end_matches(".bias");
        assert!(prose.contains(&format!("`{general}`")), "docs/src/models.md does not name the tensor {general}");
    }
}
