"""English words that carry grammar and little content: an augmentation that replaced them would write no sentences."""

from __future__ import annotations

GRAMMAR = frozenset({
    "a", "about", "above", "after", "again", "against", "ain", "all", "also", "although", "am", "among", "an",
    "and", "any", "are", "aren", "as", "at", "be", "because", "been", "before", "being", "below", "between",
    "both", "but", "by", "can", "could", "couldn", "d", "dare", "did", "didn", "do", "does", "doesn", "doing",
    "don", "done", "down", "during", "each", "either", "even", "ever", "every", "few", "for", "from", "further",
    "had", "hadn", "has", "hasn", "have", "haven", "having", "he", "her", "here", "hers", "herself", "him",
    "himself", "his", "how", "i", "if", "in", "into", "is", "isn", "it", "its", "itself", "just", "ll", "m",
    "may", "me", "might", "mine", "more", "most", "must", "mustn", "my", "myself", "need", "needn", "neither",
    "never", "no", "nor", "not", "now", "o", "of", "off", "on", "once", "only", "or", "other", "ought", "our",
    "ours", "ourselves", "out", "over", "own", "re", "s", "same", "shall", "shan", "she", "should", "shouldn",
    "since", "so", "some", "still", "such", "t", "than", "that", "the", "their", "theirs", "them", "themselves",
    "then", "there", "these", "they", "this", "those", "though", "through", "to", "too", "toward", "towards",
    "under", "unless", "until", "up", "upon", "us", "ve", "very", "was", "wasn", "we", "were", "weren", "what",
    "when", "where", "whether", "which", "while", "who", "whom", "whose", "why", "will", "with", "within",
    "without", "won", "would", "wouldn", "y", "yet", "you", "your", "yours", "yourself", "yourselves",
})  # fmt: skip
"""In lower case, without apostrophes: what is before and after one is a word of its own where texts are divided so."""
