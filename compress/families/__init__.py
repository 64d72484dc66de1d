"""Families of encoders, one per file: where each keeps its layers and what can be done with them.

Each file registers its family; a family of another package does so in the same way.
"""

from compress.families import albert as albert
from compress.families import bert as bert
from compress.families import camembert as camembert
from compress.families import deberta_v2 as deberta_v2
from compress.families import distilbert as distilbert
from compress.families import electra as electra
from compress.families import ernie as ernie
from compress.families import mobilebert as mobilebert
from compress.families import modernbert as modernbert
from compress.families import mpnet as mpnet
from compress.families import roberta as roberta
from compress.families import xlm_roberta as xlm_roberta
