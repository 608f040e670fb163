"""The ABAW challenge's files, for Python: the organisers' template, a submission and its check."""

from maven_jax.challenge.template import check_submission, read_template, write_submission

__all__ = ["check_submission", "read_template", "write_submission"]
