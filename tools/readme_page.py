"""Makes README.md the documentation's first page: it is written once. A hook of MkDocs."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page; links into docs/ lead to the pages there, others to the repository."""
    readme = Path(config.config_file_path).with_name("README.md").read_text()
    text = re.sub(r"\]\(docs/", "](", readme)
    text = re.sub(
        r"\]\(((?:examples|tests|tools|benches|src|python)/|[A-Z]+(?:\.md)?\b)",
        lambda match: f"]({config.repo_url}/blob/main/{match[1]}",
        text,
    )
    files.append(File.generated(config, "index.md", content=text))
    return files
