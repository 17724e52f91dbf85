"""An evaluation: a bundle's verdicts on labelled photographs become figures, pages and a model card.

findings: what is kept (report.json). measure: verdicts to findings. drawings: its pictures. report: findings to
sections. document: sections to HTML and Markdown. write: the output folder. model_card: findings and card to
MODEL_CARD.md.
"""
