"""From what is there to the pages of a report, and what a person is told of them."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from engine.config import Config
from engine.dataset import open_dataset
from engine.layout import Output
from engine.places import sent_folder
from pipelines.compatible import check_decided_once
from pipelines.reannotate import check_earlier


def report_round(output: Output, number: int, config: Config, console: Console) -> None:
    """Writes the pages about a whole round."""
    from engine.report import write_report

    check_decided_once(output, number)
    check_earlier(output, number)
    images = None if config.report.images == "all" else config.report.images
    with console.status("report"), sent_folder(output.report.parent) as folder:
        write_report(open_dataset(output.root, number), config.ingest, folder, images)
        files = [path for path in folder.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files) / 1e6
    beside = f" with {len(files) - 1} files beside it" if len(files) > 1 else ""
    told = f"report of round {number}: {output.report} ({size:.1f} MB{beside}), to be opened in a browser"
    console.print(Text(told), soft_wrap=True)
