"""The run page: everything a run wrote, as one HTML file that needs nothing else."""

from miao.report.page import write_report
