"""Command line: python -m data_prep list | fetch | build | verify | catalog-hash."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_prep import catalog, dialogues, plain
from data_prep.build import Built, build
from data_prep.download import fetch
from rec_utils.errors import UserError, run_cli
from rec_utils.settings import data_dir

EXAMPLES = """\
examples:
  python -m data_prep list
  python -m data_prep build ml-latest-small          # bundled: needs no network
  python -m data_prep fetch ml-1m && python -m data_prep build ml-1m
  python -m data_prep build ml-1m --from ~/Downloads # a folder that holds ml-1m.zip, ml-1m/ or the raw files
  python -m data_prep build ml-1m --from ~/ml-1m.zip
  python -m data_prep fetch reki && python -m data_prep build reki    # files of others, which are not shipped
  python -m data_prep build redial-full --from ~/Downloads # holds redial_dataset.zip
  python -m data_prep build amazon-books --from ~/Downloads # holds Books_5.json.gz and meta_Books.json.gz
  python -m data_prep verify                         # all bundled and all built files
"""


def list_data_sets() -> None:
    """Print one line a data set: size, whether it is shipped and built, licence."""
    print(f"{'name':<16}{'ratings':>11}{'users':>9}{'movies':>8}  {'shipped':<8}{'built':<6}licence")
    for entry in catalog.load().values():
        counts = entry.ratings.counts if entry.ratings else None
        numbers = f"{counts.ratings:>11,}{counts.users:>9,}{counts.items:>8,}" if counts else " " * 28
        built = ""
        if entry.dialogues and entry.bundled:
            built = "yes"  # shipped as tables
        elif entry.ratings or entry.files or entry.dialogues:
            built = "yes" if (plain.is_built(entry) if entry.files else Built.read(entry.name)) else "no"
        print(f"{entry.name:<16}{numbers}  {'yes' if entry.ship else 'no':<8}{built:<6}{entry.licence}")


def fetch_data_set(name: str) -> None:
    """Download the archive or the files of a data set that is not shipped."""
    entry = catalog.entry(name)
    if entry.bundled:
        print(f"{name} is shipped with the project: nothing to fetch")
        return
    path = fetch(entry)
    hashed = f"all {len(entry.files)} files" if entry.files else f"sha256 {entry.archive.sha256}"
    print(f"{path} is there, {hashed}\nnext: python -m data_prep build {name}")


def build_data_set(name: str, where: Path | None) -> None:
    """Build a data set and print its tables or files with their hashes."""
    entry = catalog.buildable_entry(name)
    if entry.files:
        _print_outcome(name, plain.build(entry, where))
        for file in entry.files:
            print(f"  {file.sha256}  {file.path}")
        return
    built, now = (dialogues.build if entry.dialogues else build)(entry, where)
    _print_outcome(name, now)
    for table, digest in built.tables.items():
        print(f"  {digest}  {table:<21} {built.rows[table]:>11,} rows")


def _print_outcome(name: str, now: bool) -> None:
    folder = data_dir() / name
    print(f"{name} was built in {folder}" if now else f"{name} is up to date in {folder}: nothing to do")


def verify(names: list[str]) -> None:
    """Check bundled and built files: of the named data sets, or of all if none is named."""
    entries = [catalog.entry(name) for name in names] or list(catalog.load().values())
    for file in catalog.check_bundled(entries):
        print(f"ok  {file.sha256[:12]}  {file.path}")
    if not names:
        catalog.check_no_stray(entries)
    for entry in entries:
        built = Built.read(entry.name) if entry.ratings or entry.dialogues else None
        if entry.files and plain.is_built(entry):
            plain.check(entry)
            for file in entry.files:
                print(f"ok  {file.sha256[:12]}  {entry.name}/{file.path} (built)")
        elif built:
            built.check()
            for table, digest in built.tables.items():
                print(f"ok  {digest[:12]}  {entry.name}/{table} (built)")
        elif names and not entry.bundled:
            raise UserError(f"{entry.name} is neither shipped nor built: there is nothing to verify")


def main() -> None:
    """Parse the command line and run one command."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep",
        description="Fetch, check and build the data sets of data_prep/catalog.yaml.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("list", help="the data sets: size, shipped, built, licence")
    command = commands.add_parser(
        "fetch", help="download a data set's archive or files; goes on where it stopped"
    )
    command.add_argument("name")
    command = commands.add_parser(
        "build", help="raw files to checked Parquet tables or a checked folder; does nothing if up to date"
    )
    command.add_argument("name")
    command.add_argument(
        "--from",
        dest="where",
        type=Path,
        metavar="DIR",
        help="folder that holds the raw files or the archive, or the archive itself; "
        "without it: the bundled or the fetched files",
    )
    command = commands.add_parser("verify", help="sizes and hashes of bundled and built files")
    command.add_argument("names", nargs="*", metavar="name")
    command = commands.add_parser("catalog-hash", help="the catalog's lines for a bundled file or folder")
    command.add_argument("path", type=Path)
    arguments = parser.parse_args()
    match arguments.command:
        case "list":
            list_data_sets()
        case "fetch":
            fetch_data_set(arguments.name)
        case "build":
            build_data_set(arguments.name, arguments.where)
        case "verify":
            verify(arguments.names)
        case "catalog-hash":
            print(catalog.catalog_lines(arguments.path))


if __name__ == "__main__":
    raise SystemExit(run_cli(main))
