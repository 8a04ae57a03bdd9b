"""The fragments that molecules are put together from, as SMILES. A substituent is attached by its first atom."""

SUBSTITUENTS = [
    "C", "CC", "C(C)C", "C(C)(C)C", "C=C", "C#C", "C1CC1", "CC=C", "c1ccccc1", "O", "OC", "OCC", "CO", "CCO", "COC",
    "OC(C)=O", "C=O", "C(C)=O", "C(=O)O", "C(=O)OC", "CC(=O)O", "N", "NC", "N(C)C", "CN", "CN(C)C", "C#N", "CC#N",
    "C(N)=O", "C(=O)NC", "C(=O)N(C)C", "NC(C)=O", "NC=O", "NC(N)=O", "C=NO", "C(=N)N", "N1CCCC1", "N1CCOCC1",
    "[N+](=O)[O-]", "F", "Cl", "CF", "CCl", "C(F)F", "C(F)(F)F", "C(Cl)Cl", "OC(F)(F)F", "OC(F)F", "C(=O)Cl",
    "C(=O)F", "S", "SC", "CS", "CSC", "S(C)=O", "S(C)(=O)=O", "S(N)(=O)=O", "NS(C)(=O)=O", "C(N)=S", "SC(F)(F)F",
    "N=C=S", "SC#N", "S(=O)(=O)F",
]  # fmt: skip

ALIPHATIC = [
    "C", "CC", "CCC", "CC(C)C", "CCCC", "C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "C1CCCCCC1", "C1CC2CCC1C2",
    "C1C2CC3CC1CC(C2)C3", "C1CCC2CCCCC2C1", "C1CC12CC2", "C=C", "CC=C", "C=CC=C", "CC(C)=C", "C1=CCCC1", "C1=CCCCC1",
    "C1=CC=CC1", "C#C", "CC#C", "C=C=C", "C=CC#C", "C1CO1", "C1COC1", "C1CCOC1", "C1CCOCC1", "C1COCCO1", "C1COCO1",
    "C1CN1", "C1CNC1", "C1CCNC1", "C1CCNCC1", "C1CNCCN1", "C1COCCN1", "C1CCSC1", "C1CCSCC1", "C1CSC1", "C1CS1",
    "C1COCCS1", "C1CN2CCN1CC2", "O=C1CCC1", "O=C1CCCC1", "O=C1CCCCC1", "O=C1CCCN1", "O=C1CCCO1", "O=C1CCN1",
    "O=C1NC(=O)CC1", "O=C1CCCCN1", "O=C1NCCO1", "O=C1CCC(=O)N1", "O=C1NC(=O)CN1", "O=C1C=CC(=O)C=C1", "O=C1C=CCC1",
    "O=C1OC(=O)C=C1", "S=C1NCCN1", "O=S1(=O)CCCC1", "C1CSCCN1", "C1CSSC1",
]  # fmt: skip

AROMATIC = [
    "c1ccccc1", "Cc1ccccc1", "c1ccc2ccccc2c1", "C1Cc2ccccc2C1", "C1CCc2ccccc2C1", "c1ccc(cc1)-c1ccccc1", "C1=Cc2ccccc2C1",
    "Oc1ccccc1", "Nc1ccccc1", "Fc1ccccc1", "Clc1ccccc1", "N#Cc1ccccc1", "COc1ccccc1", "O=Cc1ccccc1",
]  # fmt: skip

HETEROAROMATIC = [
    "c1ccncc1", "c1ccnnc1", "c1cncnc1", "c1cnccn1", "c1ncncn1", "c1cc[nH]c1", "c1ccoc1", "c1ccsc1", "c1c[nH]cn1",
    "c1cc[nH]n1", "c1cocn1", "c1ccon1", "c1cscn1", "c1ccsn1", "c1c[nH]nn1", "c1nc[nH]n1", "c1nnn[nH]1", "c1nnco1",
    "c1ncon1", "c1nncs1", "c1ccc2[nH]ccc2c1", "c1ccc2[nH]cnc2c1", "c1ccc2[nH]ncc2c1", "c1ccc2occc2c1", "c1ccc2sccc2c1",
    "c1ccc2ncccc2c1", "c1ccc2cnccc2c1", "c1ccc2ncncc2c1", "c1ccc2nccnc2c1", "c1ccc2ocnc2c1", "c1ccc2scnc2c1",
    "c1ncc2[nH]cnc2n1", "c1cnc2[nH]ccc2c1", "c1ccc2c(c1)OCO2", "O=c1cccc[nH]1", "O=c1cc[nH]cc1", "O=c1ccocc1",
    "O=c1ccccn1C", "Cn1ccnc1", "Cn1cccc1", "O=c1ccc2ccccc2o1", "c1cnn2cccc2c1", "c1ccn2ccnc2c1",
]  # fmt: skip

LINKERS = [
    "C(=O)N", "NC(=O)", "S(=O)(=O)N", "O", "N", "C", "CC", "C(=O)", "C(=O)O", "NC(=O)N", "S", "CO", "CN", "CNC(=O)",
    "C=C", "C#C", "", "CS", "OCC(=O)N",
]  # fmt: skip

# Side chains of the amino acids in their uncharged forms; glycine and proline are written out where they are used.
SIDE_CHAINS = {
    "A": "C", "V": "C(C)C", "L": "CC(C)C", "I": "C(C)CC", "M": "CCSC", "F": "Cc1ccccc1", "W": "Cc1c[nH]c2ccccc12",
    "S": "CO", "T": "C(C)O", "C": "CS", "Y": "Cc1ccc(O)cc1", "N": "CC(N)=O", "Q": "CCC(N)=O", "D": "CC(=O)O",
    "E": "CCC(=O)O", "K": "CCCCN", "R": "CCCNC(=N)N", "H": "Cc1c[nH]cn1",
}  # fmt: skip

NUCLEOBASES = {
    "adenine": "Nc1ncnc2[nH]cnc12", "guanine": "Nc1nc2[nH]cnc2c(=O)[nH]1", "cytosine": "Nc1cc[nH]c(=O)n1",
    "thymine": "Cc1c[nH]c(=O)[nH]c1=O", "uracil": "O=c1cc[nH]c(=O)[nH]1", "hypoxanthine": "O=c1[nH]cnc2[nH]cnc12",
    "xanthine": "O=c1[nH]c(=O)c2[nH]cnc2[nH]1", "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "dihydrouracil": "O=C1CCNC(=O)N1", "purine": "c1ncc2[nH]cnc2n1", "isocytosine": "Nc1nccc(=O)[nH]1",
    "diaminopurine": "Nc1nc(N)c2nc[nH]c2n1",
}  # fmt: skip
BASE_SUBSTITUENTS = ["C", "CC", "F", "Cl", "N", "NC", "O", "OC", "S", "SC", "CO", "C=O", "C#N", "C(F)(F)F", "C1CCCO1"]
# By the nitrogen that carries the sugar.
GLYCOSYLATED = [
    "n1cnc2c(N)ncnc12", "n1cnc2c(=O)[nH]c(N)nc12", "n1ccc(N)nc1=O", "n1cc(C)c(=O)[nH]c1=O", "n1ccc(=O)[nH]c1=O",
    "n1cnc2c(=O)[nH]cnc12", "n1cc(F)c(=O)[nH]c1=O", "n1cnc2c(Cl)ncnc12",
]  # fmt: skip
SUGAR_OF_NUCLEOSIDE = ["C1CC(O)C(CO)O1", "C1C(O)C(O)C(CO)O1", "C1CCC(CO)O1", "C1C(F)C(O)C(CO)O1"]

# {} are the places of SUGAR_GROUPS.
PYRANOSE = "OCC1OC({})C({})C({})C1{}"
SUGARS = [
    "OCC(O)C=O", "OCC(=O)CO", "OCC(O)CO", "OCC(O)C(O)C=O", "OCC(O)C(O)CO", "OCC(O)C(=O)CO", "OCC(O)C(O)C(O)C=O",
    "OCC(O)C(O)C(O)CO", "OCC(O)C(O)C(=O)CO", "OCC(O)C(O)C(O)C(O)C=O", "OCC(O)C(O)C(O)C(O)CO", "OCC(O)C(O)C(O)C(=O)CO",
    "OC1CCOC1", "OC1COC(O)C1O", "OCC1OC(O)C(O)C1O", "OCC1OC(O)CC1O", "OC1COC(O)C(O)C1O", "OCC1(O)OCC(O)C(O)C1O",
    "OCC1OC(CO)(O)C(O)C1O", "OC1C(O)C(O)C(O)C(O)C1O", "OCC1OC(=O)C(O)C1O", "OCC1OC(=O)C(O)C(O)C1O",
    "OC(=O)C1OC(O)C(O)C(O)C1O", "CC1OC(O)C(O)C(O)C1O", "COC1COC(O)C(O)C1O", "OCC1OC(OC)C(O)C1O", "OC1CCCOC1",
    "OC1CCCCO1", "COC1CCCCO1", "OC1CCCC(O)C1O", "OC1COC2OCC(O)C12", "OC(=O)C(O)C(O)C(O)C(O)CO", "NCC1OC(O)C(O)C(O)C1O",
]  # fmt: skip
SUGAR_GROUPS = ["O", "OC", "N", "[H]", "F", "NC(C)=O"]
