"""Photographs out of DICOM; structured report and secondary capture back; a DICOM node.

Needs the packages of the extra `dicom`; nothing outside this room imports them.
"""
