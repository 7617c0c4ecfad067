"""Reports: tables, figures and HTML pages.

chat             prompts as text
markdown         cells, tables and numbers as text
tables           the Markdown report of a study, and its CSV files
glance           the report's first table
primary_report   the section on the primary comparison
novelty_report   the section on the novelty signal
figures          figures as SVG and PNG
pages            self-contained HTML pages
"""
